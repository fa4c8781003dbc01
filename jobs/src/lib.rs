//! The contract of Rekindle: job messages, plans, records and cluster specs (pure), and the two
//! ports that carry them: the queue and the store.
pub mod queue;
