//! Virtual users in this process: each keeps one connection, and asks over it one time after the other.
//!
//! First all of them connect, so many at a time; then all begin at once. A user whose connection broke makes another
//! one, and waits for it as a visitor would. All of them end when the [`Load`] is dropped.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::Response;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::files;
pub use super::files::TooFewFiles;
pub use super::tally::Tally;
use crate::application::{CONNECT, Open, Way};

/// Connections that are being made at a time before the load begins.
const AT_A_TIME: usize = 64;

/// How much load there is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Virtual users.
    pub users: u32,
    /// How often each of them asks.
    pub iterations: u32,
    /// How long all of it may last, with the time to connect.
    pub at_most: Duration,
    /// How long an answer may take, to its end.
    pub answer: Duration,
}

impl Plan {
    /// Requests of all users together.
    pub fn requests(&self) -> u64 {
        u64::from(self.users) * u64::from(self.iterations)
    }
}

/// Virtual users at work.
#[derive(Debug)]
pub struct Load {
    plan: Plan,
    shared: Arc<Shared>,
    users: JoinSet<()>,
    until: Instant,
}

/// What all users share.
#[derive(Debug)]
struct Shared {
    way: Way,
    plan: Plan,
    connecting: Semaphore,
    /// Users that tried to connect.
    ready: AtomicU32,
    /// Where they wait for one another.
    start: Barrier,
    began: OnceLock<Instant>,
    tally: Mutex<Tally>,
}

/// How far a load is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many users of all have tried to connect.
    Connecting(u32, u32),
    /// So many requests of all were made, and so many failed.
    Asking(u64, u64, u64),
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting(ready, all) => {
                write!(f, "{ready} of {all} virtual users are connected")
            }
            Self::Asking(done, all, failed) => {
                write!(f, "{done} of {all} requests are done, {failed} failed")
            }
        }
    }
}

impl Load {
    /// Lets the users loose.
    pub fn start(way: Way, plan: Plan) -> Result<Self, TooFewFiles> {
        files::allow(plan.users)?;
        let shared = Arc::new(Shared {
            way,
            plan,
            connecting: Semaphore::new(AT_A_TIME),
            ready: AtomicU32::new(0),
            start: Barrier::new(plan.users as usize),
            began: OnceLock::new(),
            tally: Mutex::default(),
        });
        let mut users = JoinSet::new();
        for _ in 0..plan.users {
            users.spawn(Arc::clone(&shared).user());
        }
        Ok(Self {
            plan,
            shared,
            users,
            until: Instant::now() + plan.at_most,
        })
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        if self.shared.began.get().is_none() {
            let ready = self.shared.ready.load(Ordering::Relaxed);
            return Progress::Connecting(ready, self.plan.users);
        }
        let tally = self.shared.tally();
        Progress::Asking(tally.requests(), self.plan.requests(), tally.failed())
    }

    /// Waits until all users are done, or the time is up. It may be dropped and called again.
    pub async fn ended(&mut self) {
        let done = async {
            while let Some(user) = self.users.join_next().await {
                if let Err(error) = user {
                    tracing::error!(%error, "a virtual user ended before its time");
                }
            }
        };
        // What runs then is dropped with the load, and counts as not done.
        let _ = tokio::time::timeout_at(self.until, done).await;
    }

    /// Ends it; what was counted, and for how long there was load.
    pub async fn counted(mut self) -> (Tally, Duration) {
        let began = self.shared.began.get();
        let lasted = began.map_or(Duration::ZERO, Instant::elapsed);
        self.users.shutdown().await;
        let tally = self.shared.tally().clone();
        (tally, lasted)
    }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of a user.
    async fn user(self: Arc<Self>) {
        let mut open = self.connect().await;
        self.ready.fetch_add(1, Ordering::Relaxed);
        if self.start.wait().await.is_leader() {
            self.began.get_or_init(Instant::now);
        }
        for _ in 0..self.plan.iterations {
            let asked = Instant::now();
            let answer = timeout(self.plan.answer, self.ask(&mut open)).await;
            let outcome = answer.unwrap_or_else(|_| {
                // The answer may still come, and is not that of the next request.
                open = None;
                Err(format!("no answer within {:?}", self.plan.answer))
            });
            self.tally().count(asked.elapsed(), outcome);
        }
    }

    /// The first connection. That it does not come about is not counted: the first request tries again.
    async fn connect(&self) -> Option<Open> {
        let _turn = self.connecting.acquire().await.ok()?;
        let opened = timeout(2 * CONNECT, self.way.open()).await;
        opened.ok()?.ok()
    }

    /// One request, over the connection that there is or another one: the bytes of its answer.
    async fn ask(&self, open: &mut Option<Open>) -> Result<u64, String> {
        if let Some(kept) = open.as_mut().filter(|open| open.is_open()) {
            match kept.ask(self.way.request(), read).await {
                Ok(answer) => return answer.ok_or_not(),
                Err(broken) => {
                    *open = None;
                    // A server may hang up between two requests. Then this one was never sent.
                    if !broken.unsent {
                        return Err(broken.to_string());
                    }
                }
            }
        }
        *open = None;
        let made = self
            .way
            .open()
            .await
            .map_err(|failure| failure.to_string())?;
        let answer = open.insert(made).ask(self.way.request(), read).await;
        match answer {
            Ok(answer) => answer.ok_or_not(),
            Err(broken) => {
                *open = None;
                Err(broken.to_string())
            }
        }
    }
}

/// What a user looks at: the status, and the bytes of the body.
struct Seen {
    status: u16,
    bytes: u64,
}

impl Seen {
    fn ok_or_not(self) -> Result<u64, String> {
        match self.status {
            200 => Ok(self.bytes),
            status => Err(format!("status {status} instead of 200")),
        }
    }
}

/// Reads an answer to its end.
async fn read(answer: Response<Incoming>) -> Result<Seen, hyper::Error> {
    let status = answer.status().as_u16();
    let (mut body, mut bytes) = (answer.into_body(), 0);
    while let Some(frame) =
        std::future::poll_fn(|cx| std::pin::Pin::new(&mut body).poll_frame(cx)).await
    {
        if let Ok(data) = frame?.into_data() {
            bytes += data.len() as u64;
        }
    }
    Ok(Seen { status, bytes })
}

#[cfg(test)]
#[path = "users_tests.rs"]
mod tests;
