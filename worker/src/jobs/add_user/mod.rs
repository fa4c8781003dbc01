//! Add-user: a person's access to the nodes, or its end, with a playbook of our own on the bastion.
//!
//! The account has no password, one key that we manage, and sudo only when asked. What another hand
//! made is never touched. The proof is read back by the worker itself, from files that are the
//! system's.

use std::collections::BTreeMap;

use jobs::ids::NodeName;
use jobs::message::{Access, AddUser};
use jobs::spec::Node;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::ansible::{self, Work, inputs};
use super::kubespray;
use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError, Proof, Proven};
use crate::ssh::keys::parse_public_key;
use crate::ssh::{Host, HostExt};
use inputs::{Inventory, Machine};

/// The step names.
pub const STEPS: &[&str] = &[
    "artifact", "intent", "runner", "image", "inputs", "alone", "start", "run", "log", "clean",
    "account", "prove",
];

/// The playbook, beside the other files of the run.
const PLAYBOOK: &str = "add-user.yml";

/// An account as a node has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Account {
    /// It is there, and an ordinary one: neither root nor in a group of others.
    exists: bool,
    /// Groups that it is in beside its own.
    groups: Vec<String>,
    /// Somebody can log in with a password.
    password: bool,
    /// Nobody can log in at all.
    locked: bool,
    /// What `authorized_keys` holds.
    keys: Option<String>,
    /// Only root can change that file and its folder.
    guarded: bool,
    /// What its file for sudo holds.
    sudo: Option<String>,
    /// It runs something. Looked at only when it should not.
    running: bool,
}

/// Gives or takes access, and proves it.
pub async fn run(ctx: &Ctx, job: &AddUser) -> Result<Proven, JobError> {
    let section = kubespray::of_spec(ctx)?;
    let nodes = choose(ctx.spec().nodes(), &job.nodes).map_err(JobError::fatal)?;
    if let Access::Grant { key, .. } = &job.access {
        // The message has been read: its form is right. This reads the key itself.
        parse_public_key(key.as_str())
            .map_err(|_| JobError::fatal("the key is none that can be read"))?;
    }
    let work = Work {
        image: &section.image,
        cwd: inputs::INPUTS,
        commands: vec![inputs::playbook(PLAYBOOK)],
        hosts: nodes.iter().map(|node| node.name.as_str()).collect(),
        deadline: ansible::DEADLINE,
        binds: vec![],
    };
    ansible::run(ctx, &work, || async {
        let machines = ansible::machines(ctx, &nodes).await?;
        let mut files = inputs::files(&inventory(&machines)?, &vars(job), &machines);
        files.insert(PLAYBOOK, include_bytes!("add-user.yml").to_vec());
        Ok(files)
    })
    .await?;

    let cluster = Cluster::of(ctx);
    let mut accounts = BTreeMap::new();
    for node in &nodes {
        let seen: Account = ctx
            .step(("account", &node.name), || async {
                let record = cluster.provisioned(&node.name).await?;
                let host = ctx.world().ssh(ctx, &record).await?;
                let seen = look(&host, job).await?;
                match wrong(job, &seen) {
                    None => Ok(seen),
                    Some(what) => Err(JobError::retry(format!("on {}: {what}", node.name))),
                }
            })
            .await?;
        accounts.insert(node.name.to_string(), seen);
    }
    ctx.prove("accounts", || async {
        Ok::<_, JobError>(prove(job, &accounts))
    })
    .await
}

fn choose(all: Vec<Node>, names: &[NodeName]) -> Result<Vec<Node>, String> {
    if let Some(name) = names
        .iter()
        .find(|name| all.iter().all(|n| n.name != **name))
    {
        return Err(format!("the spec has no switched-on node `{name}`"));
    }
    let chosen = |node: &Node| names.is_empty() || names.contains(&node.name);
    Ok(all.into_iter().filter(chosen).collect())
}

fn vars(job: &AddUser) -> BTreeMap<String, Value> {
    let (key, sudo) = match &job.access {
        Access::Grant { key, sudo } => (key.as_str(), *sudo),
        Access::Revoke => ("", false),
    };
    let vars = [
        ("user", json!(job.name)),
        ("key", json!(key)),
        ("sudo", json!(sudo)),
        ("revoke", json!(job.access == Access::Revoke)),
    ];
    vars.map(|(name, value)| (name.to_owned(), value)).into()
}

fn inventory(machines: &[Machine]) -> Result<Inventory<Value>, JobError> {
    let problems = inputs::problems(machines);
    if !problems.is_empty() {
        return Err(JobError::fatal(problems.join("; ")));
    }
    let host = |m: &Machine| {
        let vars = json!({"ansible_host": m.record.internal.ip, "ansible_user": m.record.ssh_user});
        (m.node.name.to_string(), vars)
    };
    Ok(Inventory::new(
        BTreeMap::new(),
        machines.iter().map(host).collect(),
        Vec::new(),
    ))
}

/// Reads the account back. Everything is asked in a way in which "no" is an answer and not a failure.
async fn look<H: Host>(host: &H, job: &AddUser) -> Result<Account, JobError> {
    let name = job.name.as_str();
    let line = |database: &'static str| async move {
        let said = host.run(&["getent", database, name]).await?;
        match said.status {
            0 => Ok(Some(said.text().trim_end().to_owned())),
            2 => Ok(None),
            other => Err(JobError::retry(format!(
                "`getent {database}` ended with {other}"
            ))),
        }
    };
    let (passwd, shadow) = (line("passwd").await?, line("shadow").await?);
    let groups = host.run_ok(&["getent", "group"]).await?.text();
    let of = |line: &Option<String>, n: usize| {
        let field = line.as_ref().and_then(|line| line.split(':').nth(n));
        field.unwrap_or_default().to_owned()
    };
    let (gid, home, shell) = (of(&passwd, 3), of(&passwd, 5), of(&passwd, 6));
    let (password, expires) = (of(&shadow, 1), of(&shadow, 7));
    let folder = format!("{home}/.ssh");
    let keys = match passwd {
        Some(_) => content(host, &format!("{folder}/authorized_keys")).await?,
        None => None,
    };
    let guarded = match keys {
        Some(_) => {
            let file = format!("{folder}/authorized_keys");
            let said = host
                .run_ok(&["stat", "-c", "%F %u %a", &folder, &file])
                .await?;
            said.text() == "directory 0 755\nregular file 0 644\n"
        }
        None => true,
    };
    let sudo = content(host, &format!("/etc/sudoers.d/rekindle-{name}")).await?;
    let running = match (&job.access, &passwd) {
        (Access::Revoke, Some(_)) => {
            let ours = ["pgrep", "--ns", "1", "--nslist", "pid", "-u", name];
            match host.run(&ours).await?.status {
                0 => true,
                1 => false,
                other => return Err(JobError::retry(format!("`pgrep` ended with {other}"))),
            }
        }
        _ => false,
    };
    Ok(Account {
        exists: passwd.is_some(),
        groups: groups_of(&groups, name, &gid),
        password: !password.starts_with(['*', '!']) && passwd.is_some(),
        locked: password.starts_with('!') && expires == "1" && shell.ends_with("/nologin"),
        keys,
        guarded,
        sudo,
        running,
    })
}

/// Groups that name the user as a member, and its own one if that is of another name.
fn groups_of(database: &str, name: &str, gid: &str) -> Vec<String> {
    let is_in = |line: &&str| {
        let mut fields = line.split(':');
        let (group, id) = (fields.next(), fields.nth(1));
        let members = fields.next().unwrap_or_default();
        members.split(',').any(|member| member == name) || (id == Some(gid) && group != Some(name))
    };
    let lines = database.lines().filter(is_in);
    lines
        .filter_map(|line| Some(line.split(':').next()?.to_owned()))
        .collect()
}

/// What a file holds, if it is there.
async fn content<H: Host>(host: &H, path: &str) -> Result<Option<String>, JobError> {
    match host.run(&["test", "-e", path]).await?.status {
        0 => Ok(Some(host.run_ok(&["cat", "--", path]).await?.text())),
        1 => Ok(None),
        other => Err(JobError::retry(format!(
            "`test -e {path}` ended with {other}"
        ))),
    }
}

/// The file for sudo.
fn sudoers(job: &AddUser) -> String {
    format!("{} ALL=(ALL:ALL) NOPASSWD: ALL\n", job.name)
}

/// What of an account is not as it should be.
fn wrong(job: &AddUser, seen: &Account) -> Option<&'static str> {
    let (checks, sudo) = match &job.access {
        Access::Grant { key, sudo } => {
            let checks = [
                (seen.exists, "the account is not there"),
                (!seen.locked, "the account is locked"),
                (
                    seen.keys.as_deref() == Some(&format!("{key}\n", key = key.as_str())),
                    "authorized_keys holds something else than the key",
                ),
            ];
            (checks, sudo.then(|| sudoers(job)))
        }
        Access::Revoke => {
            let checks = [
                (seen.locked || !seen.exists, "the account is not locked"),
                (seen.keys.is_none(), "the account still has a key"),
                (!seen.running, "the account still runs something"),
            ];
            (checks, None)
        }
    };
    let always = [
        (!seen.password, "the account has a password"),
        (seen.groups.is_empty(), "the account is in groups of others"),
        (seen.guarded, "the account can change its own keys"),
        (
            seen.sudo == sudo,
            "the file for sudo is not as it should be",
        ),
    ];
    let all = checks.into_iter().chain(always);
    all.into_iter()
        .find(|(good, _)| !good)
        .map(|(_, what)| what)
}

fn prove(job: &AddUser, accounts: &BTreeMap<String, Account>) -> Proof {
    Proof {
        expected: json!({"user": job.name, "access": job.access, "nodes": accounts.keys().collect::<Vec<_>>()}),
        observed: json!(accounts),
        holds: !accounts.is_empty() && accounts.values().all(|seen| wrong(job, seen).is_none()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use jobs::user::{PublicKey, UserName};

    use super::*;
    use crate::ssh::scripted::{Scripted, fails, prints};

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBy8J3iJeCBE41pd2kUsu1S5DV2Vh7uC9zYMFjlhUUyZ ann";

    fn job(access: Access) -> AddUser {
        AddUser {
            name: UserName::new("ann").unwrap(),
            access,
            nodes: vec![],
        }
    }

    fn grant(sudo: bool) -> AddUser {
        let key = PublicKey::parse(KEY).unwrap();
        job(Access::Grant { key, sudo })
    }

    /// As the node has it when all is well.
    fn granted() -> Account {
        Account {
            exists: true,
            groups: vec![],
            password: false,
            locked: false,
            keys: Some(format!("{KEY}\n")),
            guarded: true,
            sudo: None,
            running: false,
        }
    }

    fn revoked() -> Account {
        Account {
            locked: true,
            keys: None,
            ..granted()
        }
    }

    #[test]
    fn whatever_is_not_as_it_should_be_is_seen() {
        let check = |job: &AddUser, good: &Account, change: fn(&mut Account), want: &str| {
            assert_eq!(wrong(job, good), None);
            let mut seen = good.clone();
            change(&mut seen);
            assert!(
                wrong(job, &seen).is_some_and(|what| what.contains(want)),
                "{want}: {seen:?}"
            );
        };
        let job_ = grant(false);
        check(&job_, &granted(), |a| a.exists = false, "not there");
        check(&job_, &granted(), |a| a.locked = true, "is locked");
        check(&job_, &granted(), |a| a.keys = None, "something else");
        check(
            &job_,
            &granted(),
            |a| a.keys.as_mut().unwrap().push_str("ssh-ed25519 AAAA\n"),
            "something else",
        );
        check(&job_, &granted(), |a| a.password = true, "a password");
        check(
            &job_,
            &granted(),
            |a| a.groups.push("root".into()),
            "groups",
        );
        check(
            &job_,
            &granted(),
            |a| a.guarded = false,
            "change its own keys",
        );
        check(
            &job_,
            &granted(),
            |a| a.sudo = Some("ann ALL=(ALL:ALL) NOPASSWD: ALL\n".into()),
            "sudo",
        );
        let root = Account {
            sudo: Some("ann ALL=(ALL:ALL) NOPASSWD: ALL\n".into()),
            ..granted()
        };
        check(&grant(true), &root, |a| a.sudo = None, "sudo");
        check(
            &grant(true),
            &root,
            |a| a.sudo = Some("ALL ALL=(ALL) ALL\n".into()),
            "sudo",
        );
        let job_ = job(Access::Revoke);
        check(&job_, &revoked(), |a| a.locked = false, "not locked");
        check(
            &job_,
            &revoked(),
            |a| a.keys = Some(String::new()),
            "still has a key",
        );
        check(&job_, &revoked(), |a| a.running = true, "runs something");
        check(&job_, &revoked(), |a| a.sudo = Some(String::new()), "sudo");
        let none = Account {
            exists: false,
            locked: false,
            ..revoked()
        };
        assert_eq!(wrong(&job_, &none), None, "what never was is gone");
        assert!(!prove(&job_, &BTreeMap::new()).holds);
    }

    #[test]
    fn groups_of_others_are_told_and_its_own_is_not() {
        let database =
            "root:x:0:\nsudo:x:27:bob,ann\nann:x:20000:\nanna:x:20001:anna\nusers:x:100:ann\n";
        assert_eq!(groups_of(database, "ann", "20000"), ["sudo", "users"]);
        assert_eq!(groups_of(database, "ann", "0"), ["root", "sudo", "users"]);
    }

    #[tokio::test]
    async fn an_account_is_read_back_and_no_failure_reads_as_absent() {
        let script = |line: String| match line.as_str() {
            "getent passwd ann" => prints("ann:x:20000:20000:Rekindle:/home/ann:/bin/bash\n"),
            "getent shadow ann" => prints("ann:*:20000:0:99999:7:::\n"),
            "getent group" => prints("root:x:0:\nann:x:20000:\n"),
            "test -e /home/ann/.ssh/authorized_keys" => prints(""),
            "cat -- /home/ann/.ssh/authorized_keys" => prints(&format!("{KEY}\n")),
            "stat -c %F %u %a /home/ann/.ssh /home/ann/.ssh/authorized_keys" => {
                prints("directory 0 755\nregular file 0 644\n")
            }
            "test -e /etc/sudoers.d/rekindle-ann" => fails(1, ""),
            line => panic!("{line}"),
        };
        let host = Scripted::new(move |command, _| script(command.argv.join(" ")));
        assert_eq!(look(&host, &grant(false)).await.unwrap(), granted());
        for fails_at in [
            "getent passwd ann",
            "getent shadow ann",
            "getent group",
            "test -e /etc/sudoers.d/rekindle-ann",
            "cat -- /home/ann/.ssh/authorized_keys",
        ] {
            let host = Scripted::new(move |command, _| match command.argv.join(" ") {
                line if line == fails_at => fails(255, "cannot"),
                line => script(line),
            });
            look(&host, &grant(false)).await.expect_err(fails_at);
        }
    }
}
