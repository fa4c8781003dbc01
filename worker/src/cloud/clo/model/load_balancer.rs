//! Load balancers and their rules.

use serde::{Deserialize, Serialize};

use super::BalancerStatus;
use super::read::{id, or_default, resource, whole_number};
use crate::cloud::clo::list::Resource;

resource!(LoadBalancer, Rule);

/// A load balancer.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct LoadBalancer {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub id: String,
    /// Its name.
    #[serde(deserialize_with = "or_default")]
    pub name: String,
    /// Where it stands.
    #[serde(default)]
    pub status: BalancerStatus,
    /// `ROUND_ROBIN` or `LEAST_CONNECTIONS`.
    pub algorithm: Option<String>,
    /// The same client meets the same backend.
    pub session_persistence: Option<bool>,
    /// Ids of its addresses.
    #[serde(default, deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// How many rules it has.
    pub rules_count: Option<u64>,
    /// How it tests its backends.
    pub healthmonitor: Option<HealthMonitor>,
    /// RFC 3339.
    pub created_in: Option<String>,
}

/// How a load balancer tests its backends. Known limits: delay >= 80, timeout >= 15, retries 1..10.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HealthMonitor {
    /// `PING`, `TCP` or `HTTP`.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub kind: String,
    /// Time between tests, probably seconds.
    #[serde(default, deserialize_with = "whole_number")]
    pub delay: u32,
    /// How long a test may take.
    #[serde(default, deserialize_with = "whole_number")]
    pub timeout: u32,
    /// How many failures make a backend bad.
    #[serde(default, deserialize_with = "whole_number")]
    pub max_retries: u32,
    /// For HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_method: Option<String>,
    /// For HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_path: Option<String>,
    /// For HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_codes: Option<String>,
}

/// A load balancer to be made.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct NewLoadBalancer {
    /// Its name, unique among ours.
    pub name: String,
    /// How it tests its backends.
    pub healthmonitor: HealthMonitor,
    /// `ROUND_ROBIN` or `LEAST_CONNECTIONS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<String>,
    /// The same client meets the same backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<bool>,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<BalancerAddress>,
    /// Its rules. Always sent, also when there are none: CLO fails without the key.
    pub rules: Vec<NewRule>,
}

/// The address of a new load balancer. CLO fails when both are named, so it is one or the other.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum BalancerAddress {
    /// One that we have.
    Existing {
        /// Id of the address.
        id: String,
    },
    /// A new one.
    New {
        /// Filtered against floods.
        ddos_protection: bool,
    },
}

/// A rule of a load balancer: one port to one backend.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Rule {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub id: String,
    /// Id of the load balancer.
    #[serde(default, deserialize_with = "or_default")]
    pub loadbalancer: String,
    /// Id of the backend.
    pub server: Option<String>,
    /// Id of the backend's internal address.
    pub address: Option<String>,
    /// Where it stands.
    #[serde(default)]
    pub status: BalancerStatus,
    /// Port on the load balancer.
    #[serde(default, deserialize_with = "or_default")]
    pub external_protocol_port: u16,
    /// Port on the backend.
    #[serde(default, deserialize_with = "or_default")]
    pub internal_protocol_port: u16,
}

/// A rule to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct NewRule {
    /// Id of the backend's internal address.
    pub address_id: String,
    /// Port on the load balancer.
    pub external_protocol_port: u16,
    /// Port on the backend.
    pub internal_protocol_port: u16,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_load_balancer_is_sent_as_clo_wants_it() {
        let new = NewLoadBalancer {
            name: "test-main-lb".into(),
            address: Some(BalancerAddress::Existing { id: "a-1".into() }),
            ..NewLoadBalancer::default()
        };
        let sent = serde_json::to_value(new).unwrap();
        assert_eq!(sent["rules"], json!([]));
        assert_eq!(sent["address"], json!({"id": "a-1"}));
    }
}
