//! A simulator of Yandex Cloud for one folder: IAM tokens, networks, subnets, and Managed Service for
//! Kubernetes.
//!
//! One port stands for all of its hosts. It exists so that the traps of the real service can be met on
//! purpose: every change is an operation that takes its time and may yet fail, lists come in pages and
//! late, a key makes a change happen once, tokens end, and the folder is full of other people's things,
//! some of them named like ours. What a client touches there is counted.
//!
//! A cluster that is RUNNING has a Kubernetes API of its own ([`crate::kube_sim`]) that knows the tokens
//! given out here, and the nodes of its node groups.
//!
//! Reading order: [`sim`](YandexSim) is what tests hold, [`faults`](YandexFaults) break calls and
//! operations, `route` knows the paths; `api` decides what is refused and what changes, `lifecycle` what
//! an operation does in time, `world` is the state, `http` the wire.

mod api;
mod faults;
mod http;
mod iam;
mod kubernetes;
mod lifecycle;
mod options;
mod refusal;
mod route;
mod sim;
mod strangers;
mod world;

pub use self::faults::{YandexFault, YandexFaults};
pub use self::options::{OnRunning, YandexOptions};
pub use self::refusal::Code;
pub use self::route::call_name;
pub use self::sim::{Asked, YandexSim};
pub use self::strangers::Seed;
pub use self::world::{Kind, Status, Thing};
