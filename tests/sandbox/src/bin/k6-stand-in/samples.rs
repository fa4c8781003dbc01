//! What is counted.

/// How something was each time.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Trend(Vec<f64>);

/// How often something was so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) yes: u64,
    pub(crate) no: u64,
}

/// One request. Times are in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Request {
    pub(crate) blocked: f64,
    pub(crate) connecting: f64,
    pub(crate) tls: f64,
    pub(crate) sending: f64,
    pub(crate) waiting: f64,
    pub(crate) receiving: f64,
    pub(crate) failed: bool,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Samples {
    pub(crate) blocked: Trend,
    pub(crate) connecting: Trend,
    pub(crate) tls: Trend,
    pub(crate) sending: Trend,
    pub(crate) waiting: Trend,
    pub(crate) receiving: Trend,
    pub(crate) duration: Trend,
    /// That of requests that did not fail.
    pub(crate) expected: Trend,
    pub(crate) failed: Rate,
    pub(crate) checks: Rate,
    pub(crate) iteration: Trend,
    pub(crate) begun: u64,
    pub(crate) dropped: u64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Samples {
    pub(crate) fn request(&mut self, request: &Request) {
        self.blocked.add(request.blocked);
        self.connecting.add(request.connecting);
        self.tls.add(request.tls);
        self.sending.add(request.sending);
        self.waiting.add(request.waiting);
        self.receiving.add(request.receiving);
        let duration = request.sending + request.waiting + request.receiving;
        self.duration.add(duration);
        if !request.failed {
            self.expected.add(duration);
        }
        self.failed.add(request.failed);
        self.sent += request.sent;
        self.received += request.received;
    }

    pub(crate) fn merge(&mut self, other: Self) {
        self.blocked.0.extend(other.blocked.0);
        self.connecting.0.extend(other.connecting.0);
        self.tls.0.extend(other.tls.0);
        self.sending.0.extend(other.sending.0);
        self.waiting.0.extend(other.waiting.0);
        self.receiving.0.extend(other.receiving.0);
        self.duration.0.extend(other.duration.0);
        self.expected.0.extend(other.expected.0);
        self.iteration.0.extend(other.iteration.0);
        for (mine, others) in [
            (&mut self.failed, other.failed),
            (&mut self.checks, other.checks),
        ] {
            mine.yes += others.yes;
            mine.no += others.no;
        }
        self.begun += other.begun;
        self.dropped += other.dropped;
        self.sent += other.sent;
        self.received += other.received;
    }
}

impl Rate {
    pub(crate) fn add(&mut self, yes: bool) {
        match yes {
            true => self.yes += 1,
            false => self.no += 1,
        }
    }

    pub(crate) fn count(self) -> u64 {
        self.yes + self.no
    }

    /// Nothing without samples.
    pub(crate) fn share(self) -> Option<f64> {
        (self.count() > 0).then(|| self.yes as f64 / self.count() as f64)
    }
}

impl Trend {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// As k6 does it: between two samples it takes a straight line.
    pub(crate) fn percentile(&self, percent: f64) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = percent / 100.0 * sorted.len().checked_sub(1)? as f64;
        let below = sorted.get(at.floor() as usize)?;
        let above = sorted.get(at.ceil() as usize)?;
        Some(below + (above - below) * at.fract())
    }

    /// A statistic by the name that `summaryTrendStats` has for it; nothing when there is no such one. Without samples
    /// all are zero.
    pub(crate) fn statistic(&self, name: &str) -> Option<f64> {
        let percent = match name {
            "count" => return Some(self.count() as f64),
            "avg" => {
                let sum: f64 = self.0.iter().sum();
                return Some(sum / self.count().max(1) as f64);
            }
            "min" => 0.0,
            "med" => 50.0,
            "max" => 100.0,
            name => name.strip_prefix("p(")?.strip_suffix(')')?.parse().ok()?,
        };
        Some(self.percentile(percent).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_those_of_k6() {
        let trend = Trend((1..=20).rev().map(f64::from).collect());
        for (name, expected) in [
            ("avg", 10.5),
            ("min", 1.0),
            ("med", 10.5),
            ("max", 20.0),
            ("p(90)", 18.1),
            ("p(95)", 19.05),
            ("count", 20.0),
        ] {
            let seen = trend.statistic(name).expect(name);
            assert!((seen - expected).abs() < 1e-9, "{name}: {seen}");
        }
        assert_eq!(trend.statistic("p(x)"), None);
        assert_eq!(trend.statistic("mean"), None);
        assert_eq!(Trend::default().percentile(95.0), None);
        assert_eq!(Trend::default().statistic("p(95)"), Some(0.0));
        assert_eq!(Trend(vec![3.0]).percentile(95.0), Some(3.0));
    }

    #[test]
    fn a_request_that_failed_is_counted_under_failed_and_not_as_expected() {
        let mut samples = Samples::default();
        samples.request(&Request {
            waiting: 2.0,
            received: 5,
            ..Request::default()
        });
        let mut other = Samples::default();
        other.request(&Request {
            failed: true,
            ..Request::default()
        });
        samples.merge(other);
        assert_eq!(samples.failed, Rate { yes: 1, no: 1 });
        assert_eq!(samples.expected, Trend(vec![2.0]));
        assert_eq!(samples.duration, Trend(vec![2.0, 0.0]));
        assert_eq!(samples.received, 5);
    }
}
