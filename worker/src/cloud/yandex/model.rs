//! What Yandex Cloud says: camelCase, whole numbers as text or number, and what is empty, false or 0 left out.
//!
//! The id alone must be there. A label that is no text makes the whole answer unreadable: by labels things are
//! deleted.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::call::Service;

/// The kinds of things that we make, in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A network.
    Network,
    /// Addresses in one zone of a network.
    Subnet,
    /// A cluster of Managed Service for Kubernetes.
    Cluster,
    /// Nodes of a cluster.
    NodeGroup,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Network, Self::Subnet, Self::Cluster, Self::NodeGroup];

    /// What records call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Subnet => "subnet",
            Self::Cluster => "cluster",
            Self::NodeGroup => "node-group",
        }
    }

    /// The kind that records call so.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    pub(super) fn service(self) -> Service {
        match self {
            Self::Network | Self::Subnet => Service::Vpc,
            Self::Cluster | Self::NodeGroup => Service::Kubernetes,
        }
    }

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Network => "/vpc/v1/networks",
            Self::Subnet => "/vpc/v1/subnets",
            Self::Cluster => "/managed-kubernetes/v1/clusters",
            Self::NodeGroup => "/managed-kubernetes/v1/nodeGroups",
        }
    }

    /// The field of a list's answer.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Network => "networks",
            Self::Subnet => "subnets",
            Self::Cluster => "clusters",
            Self::NodeGroup => "nodeGroups",
        }
    }

    /// The field of an operation's metadata with the id.
    pub(super) fn id_field(self) -> &'static str {
        match self {
            Self::Network => "networkId",
            Self::Subnet => "subnetId",
            Self::Cluster => "clusterId",
            Self::NodeGroup => "nodeGroupId",
        }
    }
}

/// Where a cluster or node group stands. The others have no status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Status {
    /// It is made.
    Provisioning,
    /// It works.
    Running,
    /// It is changed.
    Reconciling,
    /// It is deleted.
    Deleting,
    /// Something else, or a status that we do not know, or none.
    #[default]
    Other,
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text: String = or_default(from)?;
        Ok(match text.as_str() {
            "PROVISIONING" => Self::Provisioning,
            "RUNNING" => Self::Running,
            "RECONCILING" => Self::Reconciling,
            "DELETING" => Self::Deleting,
            _ => Self::Other,
        })
    }
}

/// Something that exists, as much of it as all kinds have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// What it is.
    pub kind: Kind,
    /// Its id.
    pub id: String,
    /// Its name; not unique for networks.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// What it lies in: a node group's cluster, a subnet's or cluster's network.
    pub parent: Option<String>,
    /// Where it stands.
    pub status: Status,
}

impl Resource {
    /// Kind and name, for people.
    pub fn what(&self) -> String {
        format!("{} {} ({})", self.kind.name(), self.name, self.id)
    }
}

/// How the API writes a [`Resource`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    #[serde(deserialize_with = "id")]
    id: String,
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "or_default")]
    network_id: String,
    #[serde(default, deserialize_with = "or_default")]
    cluster_id: String,
    #[serde(default)]
    status: Status,
}

impl Item {
    pub(super) fn of(self, kind: Kind) -> Resource {
        let parent = match kind {
            Kind::Network => String::new(),
            Kind::Subnet | Kind::Cluster => self.network_id,
            Kind::NodeGroup => self.cluster_id,
        };
        Resource {
            kind,
            id: self.id,
            name: self.name,
            labels: self.labels,
            parent: Some(parent).filter(|id| !id.is_empty()),
            status: self.status,
        }
    }
}

/// A cluster, with the way to its API.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// Its id.
    #[serde(deserialize_with = "id")]
    pub id: String,
    /// Where it stands.
    #[serde(default)]
    pub status: Status,
    /// Its masters.
    #[serde(default, deserialize_with = "or_default")]
    pub master: Master,
}

/// The masters of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Master {
    /// Where the Kubernetes API is.
    #[serde(default, deserialize_with = "or_default")]
    pub endpoints: Endpoints,
    /// How to know it.
    #[serde(default, deserialize_with = "or_default")]
    pub master_auth: MasterAuth,
}

/// Where the Kubernetes API is; empty until the cluster runs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// From anywhere.
    #[serde(default, deserialize_with = "or_default")]
    pub external_v4_endpoint: String,
}

/// How to know the Kubernetes API.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MasterAuth {
    /// Its authority, as PEM.
    #[serde(default, deserialize_with = "or_default")]
    pub cluster_ca_certificate: String,
}

/// A value that may also be missing or null.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// An id is there and may stand in a path.
pub(super) fn id<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let id = String::deserialize(from)?;
    match crate::cloud::http::is_id(&id) {
        true => Ok(id),
        false => Err(serde::de::Error::custom("an id is none")),
    }
}

/// A whole number, which the API writes as a text when it may be large.
pub(super) fn maybe_int<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(i64),
        Text(String),
    }
    match Option::<Written>::deserialize(from)? {
        None => Ok(None),
        Some(Written::Number(number)) => Ok(Some(number)),
        Some(Written::Text(text)) => {
            let number = text.parse();
            number.map(Some).map_err(serde::de::Error::custom)
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_but_the_id_may_be_left_out() {
        let item: Item = serde_json::from_value(json!({"id": "enp1"})).unwrap();
        let network = item.of(Kind::Network);
        assert_eq!(network.what(), "network  (enp1)");
        assert!(network.labels.is_empty() && network.parent.is_none());
        let nulls =
            json!({"id": "catx", "name": null, "labels": null, "clusterId": null, "status": null});
        let group = serde_json::from_value::<Item>(nulls).unwrap();
        assert_eq!(group.of(Kind::NodeGroup).status, Status::Other);
        let cluster: Cluster = serde_json::from_value(json!({"id": "cat1", "master": {}})).unwrap();
        assert_eq!(cluster.master, Master::default());
        for bad in [
            json!({"name": "n"}),
            json!({"id": ""}),
            json!({"id": "../networks"}),
            json!({"id": 7}),
            json!({"id": "x", "labels": {"rekindle": 1}}),
            json!({"id": "x", "labels": ["rekindle"]}),
        ] {
            assert!(
                serde_json::from_value::<Item>(bad.clone()).is_err(),
                "{bad}"
            );
        }
    }

    #[test]
    fn whole_numbers_are_texts_or_numbers() {
        #[derive(Deserialize)]
        struct Holder {
            #[serde(default, deserialize_with = "maybe_int")]
            n: Option<i64>,
        }
        let read = |value| serde_json::from_value::<Holder>(value).map(|holder| holder.n);
        assert_eq!(
            read(json!({"n": "4294967296"})).unwrap(),
            Some(4_294_967_296)
        );
        assert_eq!(read(json!({"n": -3})).unwrap(), Some(-3));
        assert_eq!(read(json!({"n": null})).unwrap(), None);
        assert_eq!(read(json!({})).unwrap(), None);
        assert!(read(json!({"n": "four"})).is_err());
        assert!(read(json!({"n": 4.5})).is_err());
    }
}
