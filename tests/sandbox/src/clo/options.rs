//! How the simulated cloud behaves when nothing is broken.

use std::time::Duration;

/// Settings of one simulated project. The defaults suit tests: small pages, short times.
#[derive(Clone, Debug)]
pub struct CloOptions {
    /// From the create call until the server is ACTIVE, beside what the host itself needs.
    pub boot_time: Duration,
    /// Until volumes, addresses, load balancers, attach and detach are settled.
    pub settle_time: Duration,
    /// Added to each answer.
    pub latency: Duration,
    /// Page size when a list is asked for without `limit`.
    pub page_size: usize,
    /// The most a list gives, whatever `limit` says.
    pub max_page_size: usize,
    /// At most this many servers are built at once, the others wait in BUILDING.
    pub max_building: usize,
    /// Quota of servers in the project, strangers' included.
    pub max_servers: Option<usize>,
    /// Whether a network boot disk outlives its server as an AVAILABLE volume, unless it was
    /// named in `delete_volumes`. The documentation does not say; a client must cope with both.
    pub boot_disks_survive: bool,
}

impl Default for CloOptions {
    fn default() -> Self {
        Self {
            boot_time: Duration::from_millis(30),
            settle_time: Duration::from_millis(10),
            latency: Duration::ZERO,
            page_size: 10,
            max_page_size: 50,
            max_building: 32,
            max_servers: None,
            boot_disks_survive: false,
        }
    }
}
