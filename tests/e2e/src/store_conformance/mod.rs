//! What the store has to do over every S3 server: one suite, run over all by `store_conformance!`.
//!
//! Each check gets a fresh bucket behind a proxy that disturbs on demand.

mod lists;
mod races;
mod refusals;
mod transfers;
mod truth;

pub use lists::*;
pub use races::*;
pub use refusals::*;
pub use transfers::*;
pub use truth::*;

use bytes::Bytes;
use sandbox::s3::{Failure, Gate, Rule, What, When};

/// Makes one test of each check, over one kind of server.
#[macro_export]
macro_rules! store_conformance {
    ($kind:expr) => {
        $crate::store_conformance!(@each $kind,
            heavy_one_of_eight_creators_wins_each_of_a_thousand_races
            one_creator_wins_when_every_tenth_answer_is_unclear
            appends_under_contention_leave_no_gap_and_lose_no_update
            appends_lose_no_update_when_every_tenth_answer_is_unclear
            the_probe_says_yes_also_on_a_versioned_bucket
            a_disturbed_probe_is_neither_safe_nor_unsafe_by_mistake
            an_unclear_create_is_ours_or_anothers_and_never_a_guess
            a_disturbed_write_is_written_in_the_end
            a_disturbed_read_gives_the_object_and_never_nothing
            a_store_that_fails_for_good_is_an_error_and_never_an_answer
            a_store_that_refuses_is_an_error_at_once
            a_listing_is_whole_over_many_pages
            a_disturbed_listing_is_whole
            keys_may_hold_odd_characters
            a_broken_transfer_goes_on
            a_slow_line_is_waited_for
            a_blob_is_created_once_over_lines_that_break
            an_object_replaced_on_the_way_is_never_a_mixture
            a_file_that_cannot_be_read_or_written_is_told_apart
            heavy_200_mb_go_up_and_come_down_whole_in_bounded_memory
            wrong_settings_are_refused_by_name_and_without_the_secret
        );
    };
    (@each $kind:expr, $($check:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $check() -> anyhow::Result<()> {
                let lab = $crate::store_lab::StoreLab::start($kind).await?;
                $crate::store_conformance::$check(&lab).await?;
                lab.stop().await;
                Ok(())
            }
        )*
    };
}

/// A body that no other writer has.
fn unique() -> Bytes {
    Bytes::from(format!("{{\"nonce\":\"{}\"}}", uuid::Uuid::new_v4()))
}

/// A rule for one key and all operations.
fn at(key: &str, when: When, what: What) -> Rule {
    Rule {
        op: None,
        key: Some(key.to_owned()),
        when,
        what,
    }
}

/// Every way in which an answer can stay away or leave open what happened. Some of them stand
/// still: use a store that does not wait long.
fn unclear() -> Vec<What> {
    vec![
        What::Fail(Failure::Internal),
        What::Fail(Failure::SlowDown),
        What::Fail(Failure::Conflict),
        What::Fail(Failure::Stalled),
        What::FailAfterEffect(Failure::Internal),
        What::FailAfterEffect(Failure::Conflict),
        What::LoseRequest,
        What::LoseAnswer,
        What::CutRequest(1),
        What::CutAnswer(0),
        What::CutAnswer(7),
        What::StallAnswer(7),
        What::HoldRequest(Gate::new()),
        What::HoldAnswer(Gate::new()),
    ]
}
