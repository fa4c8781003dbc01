//! How a job fails: whether to try again, and what may be left behind.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use jobs::ids::StepKey;
use jobs::record::LeftBehind;
use jobs::store::StoreError;

/// What a job or step ends with when it does not end well.
#[derive(Debug)]
pub struct JobError {
    /// Whether to try again.
    pub again: Again,
    /// What may be left in the world.
    pub left_behind: LeftBehind,
    /// The step it happened in, once known.
    pub step: Option<StepKey>,
    /// What happened.
    pub cause: Box<dyn Error + Send + Sync>,
}

/// Whether to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Again {
    /// Yes: after this time, or after the engine's backoff.
    Retry {
        /// At least this long from now.
        after: Option<Duration>,
    },
    /// No: repeating cannot help.
    Fatal,
    /// Not without a person's word.
    NeedsApproval,
    /// Nothing is wrong with the job: the turn ends here.
    Interrupted(Interrupt),
}

/// Why a turn ends although nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// Something outside is not ready; go on after this time.
    Yield(Duration),
    /// The operator paused the recovery.
    Paused,
    /// The operator cancelled the recovery.
    Cancelled,
    /// This worker shuts down.
    Shutdown,
    /// Somebody else may own the job now: touch nothing any more.
    LostLease,
}

impl JobError {
    /// A failure that another try may cure. The next try looks before it acts.
    pub fn retry(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            again: Again::Retry { after: None },
            left_behind: LeftBehind::Unknown,
            step: None,
            cause: cause.into(),
        }
    }

    /// A failure that no repetition cures.
    pub fn fatal(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            again: Again::Fatal,
            left_behind: LeftBehind::Resources,
            step: None,
            cause: cause.into(),
        }
    }

    /// Something that only a person may allow.
    pub fn needs_approval(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            again: Again::NeedsApproval,
            left_behind: LeftBehind::Resources,
            step: None,
            cause: cause.into(),
        }
    }

    pub(crate) fn interrupted(why: Interrupt) -> Self {
        Self {
            again: Again::Interrupted(why),
            left_behind: LeftBehind::Nothing,
            step: None,
            cause: format!("{why:?}").into(),
        }
    }

    /// Says what is left behind.
    #[must_use]
    pub fn leaves(self, left_behind: LeftBehind) -> Self {
        Self {
            left_behind,
            ..self
        }
    }

    /// Puts what we were doing in front of the cause.
    #[must_use]
    pub fn while_doing(self, doing: impl Into<String>) -> Self {
        let cause = Box::new(Doing {
            doing: doing.into(),
            source: self.cause,
        });
        Self { cause, ..self }
    }

    pub(crate) fn at(self, step: &StepKey) -> Self {
        let step = self.step.or_else(|| Some(step.clone()));
        Self { step, ..self }
    }

    /// The chain of causes as texts, outermost first.
    pub fn chain(&self) -> Vec<String> {
        let mut chain = vec![self.cause.to_string()];
        let mut source = self.cause.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Some libraries repeat their source in their own text.
            if !chain.last().is_some_and(|last| last.contains(&text)) {
                chain.push(text);
            }
            source = cause.source();
        }
        chain
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(step) = &self.step {
            write!(f, "at `{step}`: ")?;
        }
        write!(f, "{}", self.chain().join(": "))
    }
}

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        if error.is_transient() {
            Self::retry(error)
        } else {
            Self::fatal(error)
        }
    }
}

#[derive(Debug)]
struct Doing {
    doing: String,
    source: Box<dyn Error + Send + Sync>,
}

impl fmt::Display for Doing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)
    }
}

impl Error for Doing {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_ref())
    }
}
