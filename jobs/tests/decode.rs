//! Properties of decoding: whatever comes from outside, the answer is a value or an error.

use jobs::message::JobMessage;
use jobs::plan::PlanFile;
use jobs::record::{JobVersion, Versioned};
use jobs::spec::ClusterSpec;
use proptest::prelude::*;

const SPEC: &str = include_str!("../../deploy/examples/cluster.yaml");
const MESSAGE: &str = r#"{"schema":1,"id":"r-1.mount/test-web-1.3","cluster":"test","recovery":"r-1","job":"mount/test-web-1","kind":"mount","node":"test-web-1"}"#;

/// Replaces a piece of a text by other bytes.
fn damaged(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let at = 0..text.len();
    (at, 0_usize..20, prop::collection::vec(any::<u8>(), 0..20)).prop_map(|(at, len, with)| {
        let mut bytes = text.as_bytes().to_vec();
        let end = (at + len).min(bytes.len());
        bytes.splice(at..end, with);
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = JobMessage::decode(&bytes);
    }

    #[test]
    fn a_damaged_message_is_a_message_or_an_error_and_survives_its_round_trip(bytes in damaged(MESSAGE)) {
        if let Ok(message) = JobMessage::decode(&bytes) {
            prop_assert_eq!(JobMessage::decode(&message.encode()), Ok(message));
        }
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = serde_json::from_slice::<Versioned<JobVersion>>(&bytes);
    }

    #[test]
    fn a_damaged_spec_is_a_spec_or_a_list_of_problems(bytes in damaged(SPEC)) {
        let text = String::from_utf8_lossy(&bytes);
        match ClusterSpec::parse(&text) {
            // What is accepted can be expanded: names, plan and all.
            Ok(spec) => {
                prop_assert!(!spec.nodes().is_empty());
                let plan = PlanFile::parse(jobs::plan::DEFAULT_PLAN).and_then(|file| file.expand(&spec));
                prop_assert!(plan.is_ok() || spec.nodes().iter().all(|n| n.role != jobs::spec::Role::Bastion), "{:?}", plan);
            }
            Err(problems) => prop_assert!(!problems.is_empty() && problems.iter().all(|p| !p.path.is_empty())),
        }
    }
}
