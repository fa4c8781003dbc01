//! One runner's part of the whole test, as k6 writes it: `1/3:2/3`.

use std::str::FromStr;

/// From one fraction to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    from: Fraction,
    to: Fraction,
}

type Fraction = (u64, u64);

impl Default for Segment {
    fn default() -> Self {
        let (from, to) = ((0, 1), (1, 1));
        Self { from, to }
    }
}

impl Segment {
    /// Its part of a number. The parts of all segments are together the number; which of them gets what remains k6
    /// decides in another way.
    pub(crate) fn share(self, of: u64) -> u64 {
        let until = |(above, below): Fraction| of * above / below;
        until(self.to) - until(self.from)
    }
}

impl FromStr for Segment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("invalid execution segment {text:?}");
        let (from, to) = text.split_once(':').ok_or_else(bad)?;
        let fraction = |text: &str| -> Option<Fraction> {
            let (above, below) = text.split_once('/').unwrap_or((text, "1"));
            let (above, below): Fraction = (above.parse().ok()?, below.parse().ok()?);
            (below > 0 && above <= below).then_some((above, below))
        };
        let (from, to) = (
            fraction(from).ok_or_else(bad)?,
            fraction(to).ok_or_else(bad)?,
        );
        match from.0 * to.1 < to.0 * from.1 {
            true => Ok(Self { from, to }),
            false => Err(bad()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_segments_are_the_whole() {
        for runners in 1..=7_u64 {
            for users in 0..40_u64 {
                let shares = (1..=runners).map(|n| {
                    let segment: Segment = format!("{}/{runners}:{n}/{runners}", n - 1)
                        .parse()
                        .expect("a segment");
                    segment.share(users)
                });
                let shares: Vec<u64> = shares.collect();
                assert_eq!(shares.iter().sum::<u64>(), users, "{shares:?}");
                let even = users / runners;
                assert!(shares.iter().all(|share| share.abs_diff(even) <= 1));
            }
        }
        assert_eq!(Segment::default().share(20), 20);
    }

    #[test]
    fn what_is_no_segment_is_refused() {
        for text in ["", "1/2", "1:0", "0:2", "0:1/0", "a:b", "1/2:1/2"] {
            assert!(text.parse::<Segment>().is_err(), "{text}");
        }
    }
}
