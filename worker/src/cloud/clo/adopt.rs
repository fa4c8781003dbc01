//! Creating something exactly once on a cloud that has no idempotency keys.
//!
//! The only thing that tells our server from a second one is its name, so: look for the name,
//! create only when it is not there, and when the create's outcome is unknown look again for a
//! while, because a list may lag behind. Not one POST is sent twice here; whether a later turn
//! sends another one is up to the job, which begins by looking again.

use std::future::Future;
use std::time::Duration;

use super::error::CloError;
use super::list::Resource;

/// How long a list may lag behind a create.
#[derive(Debug, Clone, Copy)]
pub struct Settle {
    /// Looks before the create. One is enough when nobody can have created yet; more when an
    /// earlier turn may have and its result was lost.
    pub looks_before: u32,
    /// Looks after a create whose outcome is unknown.
    pub looks_after: u32,
    /// Time between looks.
    pub every: Duration,
}

impl Default for Settle {
    fn default() -> Self {
        Self {
            looks_before: 1,
            looks_after: 6,
            every: Duration::from_secs(5),
        }
    }
}

impl Settle {
    /// For when an earlier turn may have created it and its result was lost.
    pub fn after_a_lost_turn(self) -> Self {
        Self {
            looks_before: self.looks_after.max(1),
            ..self
        }
    }
}

/// How we came to have it.
#[derive(Debug, Clone, PartialEq)]
pub enum Made<T> {
    /// It was there, or our create worked although its answer was lost.
    Adopted(T),
    /// We created it; this is its id. Whether it has all that was asked for is not known yet.
    Created(String),
}

impl<T: Resource> Made<T> {
    /// The id.
    pub fn id(&self) -> &str {
        match self {
            Self::Adopted(item) => item.id(),
            Self::Created(id) => id,
        }
    }
}

/// Finds the one thing that bears our unique name, or creates it. `what` is kind and name, for
/// errors: `server test-web-1`. `find` must fail when its list is not complete.
///
/// An [`CloError::Ambiguous`] from here means that the create got no answer and nothing showed up
/// while we looked. The next try should settle before it creates ([`Settle::after_a_lost_turn`]).
pub async fn adopt_or_create<T, Find, Finding, Create, Creating>(
    what: &str,
    find: Find,
    create: Create,
    settle: Settle,
) -> Result<Made<T>, CloError>
where
    T: Resource,
    Find: Fn() -> Finding,
    Finding: Future<Output = Result<Vec<T>, CloError>>,
    Create: FnOnce() -> Creating,
    Creating: Future<Output = Result<String, CloError>>,
{
    if let Some(found) = look_for(what, &find, settle).await? {
        return Ok(Made::Adopted(found));
    }
    let lost = match create().await {
        Ok(id) => return Ok(Made::Created(id)),
        Err(error) if !error.is_ambiguous() => return Err(error),
        Err(error) => error,
    };
    tracing::warn!(what, error = %lost, "the outcome of a create is unknown, looking for it");
    for _ in 0..settle.looks_after {
        tokio::time::sleep(settle.every).await;
        match find().await {
            Ok(found) => {
                if let Some(found) = the_only(what, found)? {
                    return Ok(Made::Adopted(found));
                }
            }
            Err(error) => tracing::debug!(what, %error, "a look failed"),
        }
    }
    Err(lost)
}

/// Looks `looks_before` times; `None` when every one of these looks saw nothing.
///
/// A failed look is not "nothing there" and does not count. As many may fail as looks are needed
/// beyond the first: a cloud that answers every fifth call with nonsense must not make it impossible
/// to look six times in a row.
pub async fn look_for<T, Find, Finding>(
    what: &str,
    find: &Find,
    settle: Settle,
) -> Result<Option<T>, CloError>
where
    T: Resource,
    Find: Fn() -> Finding,
    Finding: Future<Output = Result<Vec<T>, CloError>>,
{
    let wanted = settle.looks_before.max(1);
    let mut may_fail = wanted - 1;
    let mut seen_nothing = 0;
    loop {
        match find().await {
            Ok(found) => {
                if let Some(found) = the_only(what, found)? {
                    return Ok(Some(found));
                }
                seen_nothing += 1;
                if seen_nothing == wanted {
                    return Ok(None);
                }
            }
            Err(error) if may_fail == 0 => return Err(error),
            Err(error) => {
                may_fail -= 1;
                tracing::debug!(what, %error, "a look failed");
            }
        }
        tokio::time::sleep(settle.every).await;
    }
}

fn the_only<T: Resource>(what: &str, mut found: Vec<T>) -> Result<Option<T>, CloError> {
    if found.len() > 1 {
        let ids = found.iter().map(|item| item.id().to_owned()).collect();
        return Err(CloError::Several {
            what: what.to_owned(),
            ids,
        });
    }
    Ok(found.pop())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::cell::{Cell, RefCell};

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Thing(&'static str);

    impl Resource for Thing {
        fn id(&self) -> &str {
            self.0
        }
    }

    fn ambiguous() -> CloError {
        CloError::Ambiguous {
            operation: "create thing".into(),
            reason: "cut".into(),
            retry_after: None,
            source: None,
        }
    }

    fn no_answer() -> CloError {
        CloError::NoAnswer {
            operation: "list".into(),
            reason: "500".into(),
            retry_after: None,
            source: None,
        }
    }

    /// Runs with the given looks (the last one repeats) and create; returns how often each ran.
    async fn run(
        looks: Vec<Result<Vec<Thing>, CloError>>,
        created: Result<String, CloError>,
    ) -> (Result<Made<Thing>, CloError>, usize, usize) {
        let (found, creates) = (Cell::new(0), Cell::new(0));
        let looks = RefCell::new(looks.into_iter());
        let result = adopt_or_create(
            "thing a",
            || {
                found.set(found.get() + 1);
                std::future::ready(looks.borrow_mut().next().unwrap_or(Ok(vec![])))
            },
            || {
                creates.set(creates.get() + 1);
                std::future::ready(created)
            },
            Settle::default(),
        )
        .await;
        (result, found.get(), creates.get())
    }

    #[tokio::test]
    async fn what_is_there_is_adopted_and_nothing_is_created() {
        let (result, _, creates) = run(vec![Ok(vec![Thing("1")])], Ok("2".into())).await;
        assert_eq!(result.unwrap(), Made::Adopted(Thing("1")));
        assert_eq!(creates, 0);
    }

    #[tokio::test]
    async fn what_is_absent_is_created_once() {
        let (result, looks, creates) = run(vec![Ok(vec![])], Ok("2".into())).await;
        assert_eq!(result.unwrap().id(), "2");
        assert_eq!((looks, creates), (1, 1));
    }

    #[tokio::test]
    async fn several_of_one_name_are_an_error_that_names_their_ids() {
        let (result, _, creates) =
            run(vec![Ok(vec![Thing("1"), Thing("2")])], Ok("3".into())).await;
        let error = result.unwrap_err();
        assert_eq!(
            error.to_string(),
            "thing a: 2 of them exist: 1, 2; delete the wrong ones"
        );
        assert!(!error.is_transient());
        assert_eq!(creates, 0);
    }

    #[tokio::test]
    async fn flaw_21_a_look_that_failed_creates_nothing() {
        let (result, _, creates) = run(vec![Err(no_answer())], Ok("3".into())).await;
        assert!(result.unwrap_err().is_transient());
        assert_eq!(creates, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn flaw_22_a_create_without_an_answer_is_found_although_the_list_lags() {
        let looks = vec![
            Ok(vec![]),
            Ok(vec![]),
            Err(no_answer()),
            Ok(vec![Thing("9")]),
        ];
        let (result, looks, creates) = run(looks, Err(ambiguous())).await;
        assert_eq!(result.unwrap(), Made::Adopted(Thing("9")));
        assert_eq!((looks, creates), (4, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn flaw_22_a_create_that_never_shows_up_is_reported_as_ambiguous_and_not_repeated() {
        let (result, looks, creates) = run(vec![], Err(ambiguous())).await;
        let error = result.unwrap_err();
        assert!(error.is_ambiguous() && error.is_transient());
        assert_eq!((looks, creates), (7, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_create_is_reported_at_once() {
        let refused = CloError::Refused {
            operation: "create thing".into(),
            status: 400,
            message: "no".into(),
            body: "".into(),
        };
        let (result, looks, _) = run(vec![], Err(refused)).await;
        assert!(result.unwrap_err().is_refused());
        assert_eq!(looks, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_lost_turn_the_looks_come_before_the_create() {
        let looks = Cell::new(0);
        let found = adopt_or_create(
            "thing a",
            || {
                looks.set(looks.get() + 1);
                std::future::ready(Ok(if looks.get() == 4 {
                    vec![Thing("1")]
                } else {
                    vec![]
                }))
            },
            || std::future::ready(Ok("2".to_owned())),
            Settle::default().after_a_lost_turn(),
        )
        .await
        .unwrap();
        assert_eq!(found, Made::Adopted(Thing("1")));
    }
}
