//! Small operators that play, on any Kubernetes API, the controllers a recovered cluster would have:
//! Flux' three and the kubelet, and beside them those of the payload.
//!
//! They come to the API as everybody else does, through a [`kube::Client`], and read and write real objects: the same
//! fields, reasons and words as the originals, with their delays and failures. They never watch; each [`Tick`] they
//! list what is there and act on what they see. So they run on a real kube-apiserver and on a small one in this
//! process alike, and one that goes away for a while is normal life.
//!
//! [`flux`] has Flux' three, [`kubelet`] makes pods of Deployments and StatefulSets, and [`app`] is the application as
//! its visitors see it. What goes wrong is set by tests ([`Faults`]) and goes on until it is cleared.
//!
//! Time is logical. A tick stands for some seconds ([`Pace`]), and every interval, timeout and back-off is counted in
//! ticks: tests wait for conditions, not for the clock.

mod api;
pub mod app;
pub mod cert_manager;
mod faults;
pub mod flux;
pub mod k6;
pub mod kubelet;
mod manager;
pub mod percona;
mod time;
mod troubles;

pub use api::Cluster;
pub use faults::{Fault, Faults};
pub use manager::{Controller, Operators, Pace, Tick};
pub use troubles::Troubles;
