//! Deleting what is ours in the right order, and nothing else.
//!
//! It goes by what is there, look by look, and needs no memory: a deletion that is begun twice is begun once. What a
//! stranger has put into something of ours keeps that from being deleted; a person has to look then.

use std::collections::BTreeMap;

use tokio::sync::Mutex;

use super::client::Yandex;
use super::error::YandexError;
use super::model::{Kind, Resource, Status};
use super::operation::Progress;

/// A removal that goes on from look to look.
#[derive(Debug, Default)]
pub struct Removal {
    /// Deletions that were begun, by the ids of what they delete. Only to know why one fails.
    begun: Mutex<BTreeMap<String, String>>,
}

/// What is left to be removed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Left {
    /// What is ours and still there.
    pub resources: Vec<Resource>,
    /// What keeps it there, for people.
    pub notes: Vec<String>,
}

impl Left {
    /// Whether all is done.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty()
    }

    /// How much is left and why, in one line.
    pub fn text(&self) -> String {
        let mut parts = Vec::new();
        for kind in Kind::ALL.iter().rev() {
            let of_kind = self.resources.iter().filter(|r| r.kind == *kind);
            match of_kind.count() {
                0 => {}
                1 => parts.push(format!("1 {}", kind.name())),
                n => parts.push(format!("{n} {}s", kind.name())),
            }
        }
        let mut text = format!("{} left", parts.join(", "));
        for note in &self.notes {
            text = format!("{text}; {note}");
        }
        text
    }
}

impl Removal {
    /// Deletes what can be deleted now, the dearest first, and says what is left. What cannot be deleted does not keep
    /// the rest.
    ///
    /// # Errors
    /// The first one that no other look can cure.
    pub async fn go_on(&self, yandex: &Yandex, plan: Plan) -> Result<Left, YandexError> {
        let mut left = Left {
            resources: plan.ours,
            notes: plan.kept,
        };
        let mut refused = None;
        for resource in plan.now.iter().rev() {
            match self.delete(yandex, resource).await {
                Ok(note) => left.notes.extend(note),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        refused.map_or(Ok(left), Err)
    }

    /// Begins to delete something, or sees how far that is; says what went wrong.
    async fn delete(
        &self,
        yandex: &Yandex,
        resource: &Resource,
    ) -> Result<Option<String>, YandexError> {
        let mut begun = self.begun.lock().await;
        if let Some(operation) = begun.get(&resource.id) {
            let progress = match yandex.operation(operation).await {
                Ok(operation) => operation.map(|operation| operation.progress()),
                Err(error) => return tolerable(resource, error).map(Some),
            };
            if let Some(Progress::Going(_)) = progress {
                return Ok(None);
            }
            // It is still there all the same: the next look begins again.
            begun.remove(&resource.id);
            return Ok(match progress {
                Some(Progress::Failed(why)) => {
                    Some(format!("{} was not deleted: {why}", resource.what()))
                }
                _ => None,
            });
        }
        if resource.status == Status::Deleting {
            return Ok(None);
        }
        match yandex.delete(resource.kind, &resource.id).await {
            Ok(operation) => {
                tracing::info!(what = resource.what(), "deleted at Yandex Cloud");
                begun.extend(operation.map(|operation| (resource.id.clone(), operation.id)));
                Ok(None)
            }
            Err(error) => tolerable(resource, error).map(Some),
        }
    }
}

/// What another look may cure, as a note.
fn tolerable(resource: &Resource, error: YandexError) -> Result<String, YandexError> {
    // What is wrong with us is wrong with all of them. What is wrong with one of them is not.
    match error.status() {
        Some(401 | 403) => Err(error),
        _ => Ok(format!("{}: {error}", resource.what())),
    }
}

/// What is ours, and what of it is deleted now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    ours: Vec<Resource>,
    now: Vec<Resource>,
    /// What is kept by strangers, for people.
    kept: Vec<String>,
}

/// Decides: what is `ours` among `all` goes when nothing depends on it any more.
pub fn plan(all: &[Resource], ours: impl Fn(&Resource) -> bool) -> Plan {
    let mut found = Plan {
        ours: all.iter().filter(|it| ours(it)).cloned().collect(),
        now: Vec::new(),
        kept: Vec::new(),
    };
    for resource in &found.ours {
        let dependents: Vec<&Resource> = all.iter().filter(|it| depends(it, resource)).collect();
        match dependents.iter().find(|dependent| !ours(dependent)) {
            Some(stranger) => found.kept.push(format!(
                "{} is kept: {} in it is not ours",
                resource.what(),
                stranger.what()
            )),
            None if dependents.is_empty() => found.now.push(resource.clone()),
            None => {}
        }
    }
    found
}

/// Whether something must be gone before another thing can be deleted, or would be deleted along with it.
fn depends(it: &Resource, on: &Resource) -> bool {
    let lies_in = |id: &str| it.parent.as_deref() == Some(id);
    match (it.kind, on.kind) {
        (Kind::NodeGroup, Kind::Cluster) | (Kind::Subnet | Kind::Cluster, Kind::Network) => {
            lies_in(&on.id)
        }
        // Which subnet a cluster is in is not told; that its network is the same one is enough for us.
        (Kind::Cluster, Kind::Subnet) => it.parent.is_some() && it.parent == on.parent,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `kind id in parent`; strangers' ids begin with `x`.
    fn resource(kind: Kind, id: &str, parent: &str) -> Resource {
        Resource {
            kind,
            id: id.into(),
            name: format!("n-{id}"),
            labels: BTreeMap::new(),
            parent: Some(parent.to_owned()).filter(|id| !id.is_empty()),
            status: Status::Other,
        }
    }

    /// Deletes as the plan says until nothing changes; gives the rounds, and what was kept in the last one.
    fn rounds(mut all: Vec<Resource>) -> (Vec<Vec<String>>, Vec<String>) {
        let ours = |r: &Resource| !r.id.starts_with('x');
        let mut rounds = Vec::new();
        loop {
            let plan = plan(&all, ours);
            let now: Vec<String> = plan.now.into_iter().map(|r| r.id).collect();
            if now.is_empty() {
                return (rounds, plan.kept);
            }
            all.retain(|r| !now.contains(&r.id));
            rounds.push(now);
        }
    }

    #[test]
    fn what_lies_in_something_goes_before_it() {
        use Kind::{Cluster, Network, NodeGroup, Subnet};
        let all = vec![
            resource(Network, "net", ""),
            resource(Network, "empty", ""),
            resource(Network, "xnet", ""),
            resource(Subnet, "sub", "net"),
            resource(Subnet, "xsub", "xnet"),
            resource(Cluster, "cat", "net"),
            resource(Cluster, "xcat", "xnet"),
            resource(NodeGroup, "g1", "cat"),
            resource(NodeGroup, "g2", "cat"),
            resource(NodeGroup, "xg", "xcat"),
        ];
        let (rounds, kept) = rounds(all);
        let want = [
            vec!["empty", "g1", "g2"],
            vec!["cat"],
            vec!["sub"],
            vec!["net"],
        ];
        assert_eq!(rounds, want);
        assert!(kept.is_empty());
    }

    #[test]
    fn what_a_stranger_put_into_ours_is_not_deleted_along_with_it() {
        use Kind::{Cluster, Network, NodeGroup, Subnet};
        let (gone, kept) = rounds(vec![
            resource(Network, "net", ""),
            resource(Subnet, "sub", "net"),
            resource(Cluster, "cat", "net"),
            resource(NodeGroup, "g1", "cat"),
            resource(NodeGroup, "xg", "cat"),
        ]);
        assert_eq!(gone, [vec!["g1"]]);
        assert_eq!(
            kept,
            ["cluster n-cat (cat) is kept: node-group n-xg (xg) in it is not ours"]
        );
        let (gone, kept) = rounds(vec![
            resource(Network, "net", ""),
            resource(Subnet, "sub", "net"),
            resource(Subnet, "xsub", "net"),
        ]);
        assert_eq!(gone, [vec!["sub"]]);
        assert_eq!(kept.len(), 1);
        let (gone, _) = rounds(vec![
            resource(Subnet, "sub", "xnet"),
            resource(Cluster, "xcat", "xnet"),
        ]);
        assert!(gone.is_empty(), "a stranger's cluster may be in it");
    }

    #[test]
    fn what_is_left_is_said_in_one_line() {
        let left = Left {
            resources: vec![
                resource(Kind::Network, "net", ""),
                resource(Kind::NodeGroup, "g1", "cat"),
                resource(Kind::NodeGroup, "g2", "cat"),
            ],
            notes: vec!["why".into()],
        };
        assert_eq!(left.text(), "2 node-groups, 1 network left; why");
    }
}
