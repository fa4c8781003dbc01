//! What CLO says, read leniently: fields may be missing or null, unknown ones are ignored, and
//! states are compared without regard to case and dashes (the API has used both).
//!
//! Not so the id, and the name of what is looked for by its name: were it called another way one day,
//! nothing would be found, and everything would be made a second time. (A name may be null: a thing
//! without one is none of ours.)

mod read;
mod status;

mod address;
mod load_balancer;
mod project;
mod server;
mod volume;

pub use address::*;
pub use load_balancer::*;
pub use project::*;
pub use server::*;
pub use status::*;
pub use volume::*;

pub(super) use read::id;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn everything_but_id_and_name_may_be_missing_or_null() {
        let little = json!({"id": "x", "name": null, "something": {"new": 1}});
        serde_json::from_value::<Server>(little.clone()).unwrap();
        serde_json::from_value::<Volume>(little.clone()).unwrap();
        serde_json::from_value::<LocalDisk>(little.clone()).unwrap();
        serde_json::from_value::<Address>(little.clone()).unwrap();
        serde_json::from_value::<LoadBalancer>(little.clone()).unwrap();
        serde_json::from_value::<Rule>(little.clone()).unwrap();
        serde_json::from_value::<Keypair>(little.clone()).unwrap();
        serde_json::from_value::<Image>(little.clone()).unwrap();
        serde_json::from_value::<Project>(little).unwrap();
        // What is looked for by its name has one, or nothing would ever be found.
        let nameless = json!({"id": "x", "title": "test-web-1"});
        assert!(serde_json::from_value::<Server>(nameless.clone()).is_err());
        assert!(serde_json::from_value::<Volume>(nameless.clone()).is_err());
        assert!(serde_json::from_value::<LoadBalancer>(nameless.clone()).is_err());
        assert!(serde_json::from_value::<Keypair>(nameless).is_err());
        let empty = json!({"id": "", "name": "test-web-1"});
        assert!(serde_json::from_value::<Server>(empty.clone()).is_err());
        assert!(serde_json::from_value::<Address>(empty).is_err());
        let nulls = json!({"id": "x", "name": null, "status": null, "addresses": null, "disk_data": null, "flavor": null});
        let server: Server = serde_json::from_value(nulls).unwrap();
        assert_eq!(
            server,
            Server {
                id: "x".into(),
                ..Server::default()
            }
        );
        assert!(serde_json::from_value::<Server>(json!({"name": "no id"})).is_err());
        let flavor: Flavor =
            serde_json::from_value(json!({"ram": 4.0, "vcpus": 2, "disk": null})).unwrap();
        assert_eq!(
            serde_json::to_string(&flavor).unwrap(),
            r#"{"ram":4,"vcpus":2}"#
        );
    }
}
