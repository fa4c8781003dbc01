//! What etcd says of its members, asked by `etcdctl` over SSH on the masters, with the certificates that Kubespray
//! puts there.

use serde::{Deserialize, Serialize};

use jobs::spec::Node;

use super::on_a_master;
use crate::engine::{Ctx, JobError};
use crate::ssh::{Host, HostExt};

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::jobs) struct Member {
    /// Its name; empty until it has been started.
    pub(in crate::jobs) name: String,
    /// The hosts of its peer URLs.
    pub(in crate::jobs) hosts: Vec<String>,
    /// It answers, and knows a leader.
    pub(in crate::jobs) healthy: bool,
    /// It counts for the quorum.
    pub(in crate::jobs) voter: bool,
}

/// The members, as the first of the masters knows them that can tell.
///
/// # Errors
/// When none can: without its quorum etcd does not say.
pub(in crate::jobs) async fn members(ctx: &Ctx, nodes: &[Node]) -> Result<Vec<Member>, JobError> {
    on_a_master(
        ctx,
        nodes,
        "ask etcd for its members",
        |master, host| async move { look(&host, master.as_str()).await },
    )
    .await
}

/// Where Kubespray keeps the certificates of etcd, for a service of the host and for a pod of kubeadm: the
/// CA's, the client's, and its key.
fn certificates(master: &str) -> [[String; 3]; 2] {
    let own = "/etc/ssl/etcd/ssl";
    let kubeadm = "/etc/kubernetes/ssl/etcd";
    [
        [
            format!("{own}/ca.pem"),
            format!("{own}/admin-{master}.pem"),
            format!("{own}/admin-{master}-key.pem"),
        ],
        ["ca.crt", "server.crt", "server.key"].map(|name| format!("{kubeadm}/{name}")),
    ]
}

async fn look<H: Host>(host: &H, master: &str) -> Result<Vec<Member>, JobError> {
    let mut found = None;
    for files in certificates(master) {
        if found.is_none() && host.run(&["test", "-e", &files[1]]).await?.success() {
            found = Some(files);
        }
    }
    let [ca, certificate, key] = found.ok_or_else(|| {
        JobError::retry("there are no certificates of etcd where Kubespray puts them")
    })?;
    let (ca, certificate, key) = (
        format!("--cacert={ca}"),
        format!("--cert={certificate}"),
        format!("--key={key}"),
    );
    let etcdctl = [
        "env",
        "ETCDCTL_API=3",
        "etcdctl",
        "--endpoints=https://127.0.0.1:2379",
        &ca,
        &certificate,
        &key,
        "--write-out=json",
    ];
    let list = [etcdctl.as_slice(), &["member", "list"]].concat();
    let list = host.run_ok(&list).await?;
    // It ends with 1 when a member is not healthy, and says which one.
    let health = [etcdctl.as_slice(), &["endpoint", "health", "--cluster"]].concat();
    let health = host.run(&health).await?;
    read(&list.stdout, &health.stdout).map_err(|e| {
        let said = String::from_utf8_lossy(&health.stderr).into_owned();
        let said: String = said.trim().chars().take(200).collect();
        JobError::retry(e).while_doing(format!("read what etcdctl says ({said})"))
    })
}

#[derive(Debug, Deserialize)]
struct List {
    members: Vec<Listed>,
}

#[derive(Debug, Deserialize)]
struct Listed {
    #[serde(default)]
    name: String,
    #[serde(rename = "peerURLs", default)]
    peers: Vec<String>,
    #[serde(rename = "clientURLs", default)]
    clients: Vec<String>,
    #[serde(rename = "isLearner", default)]
    learner: bool,
}

#[derive(Debug, Deserialize)]
struct Endpoint {
    endpoint: String,
    health: bool,
}

/// A member is healthy when each of its endpoints was asked and is: one of which nothing is said is not.
fn read(list: &[u8], health: &[u8]) -> Result<Vec<Member>, serde_json::Error> {
    let list: List = serde_json::from_slice(list)?;
    let health: Vec<Endpoint> = serde_json::from_slice(health)?;
    let healthy = |url: &String| health.iter().any(|e| e.endpoint == *url && e.health);
    let member = |listed: Listed| Member {
        hosts: listed.peers.iter().map(|url| host_of(url)).collect(),
        healthy: !listed.clients.is_empty() && listed.clients.iter().all(healthy),
        voter: !listed.learner,
        name: listed.name,
    };
    Ok(list.members.into_iter().map(member).collect())
}

/// `10.0.0.1` of `https://10.0.0.1:2380`.
fn host_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
    host.trim_matches(['[', ']', '/']).to_owned()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::ssh::scripted::{Scripted, fails, prints};

    /// As etcdctl 3.5 prints it.
    const LIST: &str = r#"{"header":{"cluster_id":17237436991929493444,"member_id":9372538179322589801,"raft_term":2},
        "members":[
            {"ID":9372538179322589801,"name":"test-master-1","peerURLs":["https://10.0.0.1:2380"],"clientURLs":["https://10.0.0.1:2379"]},
            {"ID":10501334649042878790,"name":"test-master-2","peerURLs":["https://10.0.0.2:2380"],"clientURLs":["https://10.0.0.2:2379"]},
            {"ID":18249187646912138824,"peerURLs":["https://10.0.0.3:2380"],"isLearner":true}]}"#;
    const HEALTH: &str = r#"[{"endpoint":"https://10.0.0.1:2379","health":true,"took":"9.8ms"},
        {"endpoint":"https://10.0.0.2:2379","health":false,"took":"5.0s","error":"context deadline exceeded"}]"#;

    #[test]
    fn members_are_read_with_their_health() {
        let members = read(LIST.as_bytes(), HEALTH.as_bytes()).unwrap();
        let seen: Vec<(&str, &str, bool, bool)> = members
            .iter()
            .map(|m| (m.name.as_str(), m.hosts[0].as_str(), m.healthy, m.voter))
            .collect();
        assert_eq!(
            seen,
            [
                ("test-master-1", "10.0.0.1", true, true),
                ("test-master-2", "10.0.0.2", false, true),
                ("", "10.0.0.3", false, false),
            ]
        );
        read(LIST.as_bytes(), b"").unwrap_err();
        read(b"", HEALTH.as_bytes()).unwrap_err();
    }

    #[tokio::test]
    async fn the_certificates_are_those_that_are_there() {
        for (there, want) in [
            (
                "/etc/ssl/etcd/ssl/admin-m.pem",
                "--cert=/etc/ssl/etcd/ssl/admin-m.pem",
            ),
            (
                "/etc/kubernetes/ssl/etcd/server.crt",
                "--cert=/etc/kubernetes/ssl/etcd/server.crt",
            ),
        ] {
            let host = Scripted::new(move |command, _| match command.argv.join(" ") {
                line if line == format!("test -e {there}") => prints(""),
                line if line.starts_with("test ") => fails(1, ""),
                line if line.ends_with("member list") => prints(LIST),
                line if line.ends_with("endpoint health --cluster") => prints(HEALTH),
                line => panic!("{line}"),
            });
            assert_eq!(look(&host, "m").await.unwrap().len(), 3);
            assert!(host.lines().last().unwrap().contains(want));
        }
    }

    #[tokio::test]
    async fn an_etcd_that_does_not_answer_has_no_members_that_we_know_of() {
        let no_list = Scripted::new(|command, _| match command.argv[0].as_str() {
            "test" => prints(""),
            _ => fails(1, "context deadline exceeded"),
        });
        look(&no_list, "m").await.unwrap_err();
        let no_certificates = Scripted::new(|_, _| fails(1, ""));
        look(&no_certificates, "m").await.unwrap_err();
        let no_health = Scripted::new(|command, _| match command.argv.join(" ") {
            line if line.starts_with("test ") => prints(""),
            line if line.ends_with("member list") => prints(LIST),
            _ => fails(1, "no"),
        });
        look(&no_health, "m").await.unwrap_err();
    }
}
