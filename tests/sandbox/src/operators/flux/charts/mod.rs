//! What charts become. No template is run: a function makes the objects that matter in the sandbox, from the same
//! values that the real chart would be given.
//!
//! Ours ([`apps`]) are rendered in full. Of others' ([`payload`]) there is what later objects or readers need: the
//! kinds that they define, what helm and health checks wait for, and the services that are named elsewhere.

mod apps;
mod payload;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

/// What is rendered.
#[derive(Debug, Clone, Copy)]
pub struct Release<'a> {
    /// The release's name.
    pub name: &'a str,
    /// Where its objects go.
    pub namespace: &'a str,
    /// The chart's name.
    pub chart: &'a str,
    /// The chart's version.
    pub version: &'a str,
    /// The chart's `appVersion`; empty when it has none.
    pub app_version: &'a str,
    /// All values, the chart's defaults too.
    pub values: &'a Value,
}

/// A release's objects, or what Helm would say of its templates.
type Objects = Result<Vec<Value>, String>;

/// Makes a release's objects; the error is what Helm would say of its templates.
pub type Render = Arc<dyn Fn(&Release<'_>) -> Result<Vec<Value>, String> + Send + Sync>;

/// Charts by name.
#[derive(Clone)]
pub struct Charts(BTreeMap<String, Render>);

impl Charts {
    /// Adds a chart, or puts another one in its place.
    pub fn set(&mut self, name: &str, render: Render) {
        self.0.insert(name.to_owned(), render);
    }

    pub(super) fn get(&self, name: &str) -> Option<&Render> {
        self.0.get(name)
    }
}

impl Default for Charts {
    /// Those of our tree.
    fn default() -> Self {
        let all: [(&str, fn(&Release<'_>) -> Objects); 14] = [
            ("slr", apps::slr),
            ("dsf", apps::dsf),
            ("pg-operator", payload::pg_operator),
            ("pg-db", payload::pg_db),
            ("pmm", payload::pmm),
            ("cert-manager", payload::cert_manager),
            ("base", payload::istio_base),
            ("istiod", payload::istiod),
            ("gateway", payload::istio_gateway),
            ("kube-prometheus-stack", payload::monitoring),
            ("harbor", payload::harbor),
            ("redis-operator", payload::redis_operator),
            ("redis-replication", payload::redis_replication),
            ("empty", |_| Ok(Vec::new())),
        ];
        let all = all.map(|(name, render)| (name.to_owned(), Arc::new(render) as Render));
        Self(all.into())
    }
}

impl fmt::Debug for Charts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// A number of the values.
fn number(values: &Value, pointer: &str, default: i64) -> i64 {
    let found = values.pointer(pointer).and_then(Value::as_i64);
    found.unwrap_or(default)
}

/// A text of the values; empty when it is none.
fn text<'a>(values: &'a Value, pointer: &str) -> &'a str {
    let found = values.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default()
}
