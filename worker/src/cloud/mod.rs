//! Clients of the clouds that machines are rented from. Concrete clients with a base URL, no
//! trait: a trait comes when a second server cloud does.

pub mod clo;
pub mod patience;
pub mod yandex;

mod http;
