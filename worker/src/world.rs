//! What jobs work on: the cloud, the network to the hosts, and the keys. Made once from the
//! worker's settings; what is not set is an error only in the job that needs it.

/// Clients and keys.
#[derive(Debug, Default)]
pub struct World {}
