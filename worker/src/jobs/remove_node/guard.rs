//! Whether a node may be removed, from what was seen of the cluster: pure, so that every case is in a table.

use std::collections::BTreeMap;

use jobs::spec::Role;

/// The cluster, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// The node that is to go.
    pub(super) node: String,
    /// It is said to be dead.
    pub(super) dead: bool,
    /// The spec's nodes in their order.
    pub(super) spec: Vec<(String, Role)>,
    /// The nodes that the API knows, and whether they are ready.
    pub(super) nodes: BTreeMap<String, bool>,
    /// etcd's members, and how they are.
    pub(super) etcd: BTreeMap<String, Voice>,
}

/// What a member of etcd is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Voice {
    /// It votes, and is healthy.
    Healthy,
    /// It would vote, if it were healthy.
    Sick,
    /// It does not vote yet.
    Learner,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// Nothing: it is neither in the API nor in etcd.
    Gone,
    /// It may be removed; whether etcd still has it as a member.
    Remove { member: bool },
    /// It must stay.
    Refuse(String),
}

/// What can be said without a look: the spec is enough to refuse.
pub(super) fn refused_by_spec(node: &str, spec: &[(String, Role)]) -> Option<String> {
    let role = spec.iter().find(|(name, _)| name == node).map(|(_, r)| *r);
    let first = spec.iter().find(|(_, role)| *role == Role::Master);
    match role {
        Some(Role::Bastion) => Some(format!(
            "{node} is the bastion, not a node of Kubernetes: switch it off in the spec if it is to go"
        )),
        Some(Role::Master) if first.is_some_and(|(name, _)| name == node) => Some(format!(
            "{node} is the first master, which Kubespray does everything through and cannot remove: let a group with other masters stand before it in the spec (an odd number in all), run `rekindle kubespray`, and remove it then"
        )),
        _ => None,
    }
}

/// Decides.
pub(super) fn decide(seen: &Seen) -> Decision {
    let node = &seen.node;
    let refuse = |why: String| Decision::Refuse(why);
    let role = seen.spec.iter().find(|(name, _)| name == node);
    let role = role.map(|(_, role)| *role);
    if let Some(why) = refused_by_spec(node, &seen.spec) {
        return refuse(why);
    }
    let (state, voice) = (seen.nodes.get(node), seen.etcd.get(node));
    if state.is_none() && voice.is_none() {
        return Decision::Gone;
    }
    let Some(role) = role else {
        return refuse(format!(
            "the spec has no switched-on node {node}, but Kubernetes has it: switch it on until it is removed"
        ));
    };
    if seen.dead && state == Some(&true) {
        return refuse(format!(
            "{node} is Ready, so it is not dead: remove it without --dead, or it would come back"
        ));
    }
    let others_ready = |of: Role| {
        let others = seen
            .spec
            .iter()
            .filter(|(name, r)| *r == of && name != node);
        let ready = others.filter(|(name, _)| seen.nodes.get(name) == Some(&true));
        ready.map(|(name, _)| name.as_str()).collect::<Vec<_>>()
    };
    let masters = others_ready(Role::Master);
    let first = seen.spec.iter().find(|(_, role)| *role == Role::Master);
    if let Some((first, _)) = first
        && !masters.contains(&first.as_str())
    {
        return refuse(format!(
            "{first}, the first master, is not Ready, and Kubespray does everything through it: bring it back first"
        ));
    }
    if role == Role::Worker && others_ready(Role::Worker).is_empty() {
        return refuse(format!(
            "{node} is the last worker: nothing would run any more; no other one is Ready, so switch on and provision another one first"
        ));
    }
    if role == Role::Master
        && let Some(why) = quorum_would_be_lost(seen)
    {
        return refuse(why);
    }
    Decision::Remove {
        member: voice.is_some(),
    }
}

/// Whether etcd would lose its quorum with the node, or has none.
fn quorum_would_be_lost(seen: &Seen) -> Option<String> {
    let count = |without: Option<&str>, which: &[Voice]| {
        let members = seen
            .etcd
            .iter()
            .filter(|(name, _)| Some(name.as_str()) != without);
        members.filter(|(_, voice)| which.contains(voice)).count()
    };
    let votes = [Voice::Healthy, Voice::Sick];
    let healthy = [Voice::Healthy];
    let mend = "make the others healthy first";
    let (all, well) = (count(None, &votes), count(None, &healthy));
    if well < all / 2 + 1 {
        return Some(format!(
            "etcd has no quorum: {well} of {all} members are healthy; {mend}, or recover the control plane"
        ));
    }
    let node = Some(seen.node.as_str());
    let (all, well) = (count(node, &votes), count(node, &healthy));
    if well == 0 || well < all / 2 + 1 {
        return Some(format!(
            "without {} etcd would have {well} healthy of {all} members, and needs {}: {mend}",
            seen.node,
            all / 2 + 1
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::Voice::{Healthy, Learner, Sick};
    use super::*;

    /// Three masters and two workers, all well.
    fn seen(node: &str) -> Seen {
        let spec = [
            ("m1", Role::Master),
            ("m2", Role::Master),
            ("m3", Role::Master),
            ("w1", Role::Worker),
            ("w2", Role::Worker),
            ("b", Role::Bastion),
        ];
        let ready = |name: &str| (name.to_owned(), true);
        Seen {
            node: node.into(),
            dead: false,
            spec: spec.map(|(name, role)| (name.to_owned(), role)).into(),
            nodes: ["m1", "m2", "m3", "w1", "w2"].map(ready).into(),
            etcd: ["m1", "m2", "m3"].map(|m| (m.to_owned(), Healthy)).into(),
        }
    }

    fn check(node: &str, change: impl FnOnce(&mut Seen), want: Result<Decision, &str>) {
        let mut seen = seen(node);
        change(&mut seen);
        match (decide(&seen), want) {
            (Decision::Refuse(why), Err(part)) => assert!(why.contains(part), "{why}"),
            (decision, Ok(want)) => assert_eq!(decision, want, "{seen:?}"),
            (decision, Err(part)) => panic!("{decision:?} instead of `{part}`: {seen:?}"),
        }
    }

    const REMOVE: Result<Decision, &str> = Ok(Decision::Remove { member: false });
    const MEMBER: Result<Decision, &str> = Ok(Decision::Remove { member: true });
    const GONE: Result<Decision, &str> = Ok(Decision::Gone);

    fn set(seen: &mut Seen, name: &str, ready: Option<bool>, voice: Option<Voice>) {
        match ready {
            Some(ready) => seen.nodes.insert(name.into(), ready),
            None => seen.nodes.remove(name),
        };
        match voice {
            Some(voice) => seen.etcd.insert(name.into(), voice),
            None => seen.etcd.remove(name),
        };
    }

    #[test]
    fn workers() {
        check("w1", |_| {}, REMOVE);
        check("w1", |s| set(s, "w1", Some(false), None), REMOVE);
        check(
            "w1",
            |s| s.dead = true,
            Err("w1 is Ready, so it is not dead"),
        );
        let dead = |s: &mut Seen| {
            s.dead = true;
            set(s, "w1", Some(false), None);
        };
        check("w1", dead, REMOVE);
        check(
            "w1",
            |s| set(s, "w2", None, None),
            Err("w1 is the last worker"),
        );
        check(
            "w1",
            |s| set(s, "w2", Some(false), None),
            Err("the last worker"),
        );
        check(
            "w1",
            |s| s.spec.retain(|(name, _)| name != "w2"),
            Err("the last worker"),
        );
        // A worker needs no quorum of etcd to be removed but the API, which has answered.
        check("w1", |s| set(s, "m3", Some(false), Some(Sick)), REMOVE);
    }

    #[test]
    fn what_is_no_node_of_ours() {
        check("b", |_| {}, Err("b is the bastion"));
        check("x", |_| {}, GONE);
        check(
            "x",
            |s| set(s, "x", Some(true), None),
            Err("switch it on until it is removed"),
        );
        check("w1", |s| set(s, "w1", None, None), GONE);
        check("m3", |s| set(s, "m3", None, None), GONE);
        // Gone is gone, also when it was the last one.
        let both = |s: &mut Seen| {
            set(s, "w1", None, None);
            set(s, "w2", None, None);
        };
        check("w1", both, GONE);
    }

    #[test]
    fn masters() {
        check("m3", |_| {}, MEMBER);
        check("m1", |_| {}, Err("m1 is the first master"));
        check(
            "m1",
            |s| set(s, "m1", None, None),
            Err("m1 is the first master"),
        );
        check(
            "m3",
            |s| set(s, "m1", Some(false), Some(Sick)),
            Err("m1, the first master, is not Ready"),
        );
        // A run that was interrupted between etcd and the API.
        check("m3", |s| set(s, "m3", Some(true), None), REMOVE);
        check("m3", |s| set(s, "m3", None, Some(Sick)), MEMBER);
        let only = |s: &mut Seen| s.spec.retain(|(name, _)| name != "m1" && name != "m2");
        check("m3", only, Err("m3 is the first master"));
    }

    #[test]
    fn the_quorum_of_etcd() {
        // Of three: the sick one may go, a healthy one beside a sick one may not.
        check("m3", |s| set(s, "m3", Some(false), Some(Sick)), MEMBER);
        check(
            "m3",
            |s| set(s, "m2", Some(false), Some(Sick)),
            Err("1 healthy of 2 members, and needs 2"),
        );
        let two_sick = |s: &mut Seen| {
            set(s, "m2", Some(false), Some(Sick));
            set(s, "m3", Some(false), Some(Sick));
        };
        check("m3", two_sick, Err("etcd has no quorum: 1 of 3"));
        // Of two.
        let two = |voice| {
            move |s: &mut Seen| {
                set(s, "m2", None, None);
                set(s, "m3", Some(true), Some(voice));
            }
        };
        check("m3", two(Healthy), MEMBER);
        check("m3", two(Sick), Err("etcd has no quorum: 1 of 2"));
        // Of five, two sick: a sick one may go, a healthy one not.
        let five = |s: &mut Seen| {
            for (name, voice) in [("m4", Sick), ("m5", Sick)] {
                s.spec.insert(3, (name.into(), Role::Master));
                set(s, name, Some(false), Some(voice));
            }
        };
        check("m5", five, MEMBER);
        check("m3", five, Err("2 healthy of 4 members, and needs 3"));
        // One that does not vote is no help, and may go.
        check("m3", |s| set(s, "m2", Some(true), Some(Learner)), MEMBER);
        check("m3", |s| set(s, "m3", Some(true), Some(Learner)), MEMBER);
        // A member that nobody knows counts all the same.
        let unknown = |s: &mut Seen| {
            s.etcd.insert("10.9.9.9".into(), Sick);
        };
        check("m3", unknown, MEMBER);
        let two_unknown = |s: &mut Seen| {
            s.etcd.insert("10.9.9.8".into(), Sick);
            s.etcd.insert("10.9.9.9".into(), Sick);
        };
        check(
            "m3",
            two_unknown,
            Err("2 healthy of 4 members, and needs 3"),
        );
        // etcd that knows nobody has nothing to lose, and no quorum.
        check("m3", |s| s.etcd.clear(), Err("etcd has no quorum: 0 of 0"));
    }
}
