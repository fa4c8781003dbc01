//! Load tests: what runners counted, put together and judged. Pure.

pub mod k6;

use jobs::record::{LoadResult, Runner};
use jobs::spec::{Driver, Thresholds};
use serde_json::Value;

/// What a test was to do.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// Name of the run.
    pub run: String,
    /// Where the load came from.
    pub driver: Driver,
    /// What was loaded, with `${DOMAIN}` in it.
    pub target: String,
    /// Virtual users, all runners together.
    pub virtual_users: u32,
    /// How often each of them was to go through the script.
    pub iterations: u32,
    /// What the application must bear.
    pub thresholds: &'a Thresholds,
}

/// Puts the runners' summaries together and judges them.
pub fn result(asked: Asked<'_>, runners: Vec<Runner>) -> LoadResult {
    LoadResult {
        run: asked.run,
        driver: asked.driver,
        target: asked.target,
        virtual_users: asked.virtual_users,
        iterations: asked.iterations,
        runners,
        total: None,
        thresholds: vec![],
        invalid: vec!["SEAM: not built yet".into()],
    }
}

/// Why a result is not a pass, for people: first why it is not valid, then which thresholds did not hold.
pub fn why(result: &LoadResult) -> String {
    result.invalid.join("; ")
}

/// The thresholds, as a proof expects them.
pub fn expected(_result: &LoadResult) -> Value {
    Value::Null
}

/// The thresholds, as a proof observed them.
pub fn observed(_result: &LoadResult) -> Value {
    Value::Null
}
