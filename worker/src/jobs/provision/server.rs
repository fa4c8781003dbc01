//! One node's server: image and key pair by name, a host key of ours, exactly one create.

use std::time::Duration;

use jobs::keys;
use jobs::message::Job;
use jobs::spec::{Node, Storage};
use serde::{Deserialize, Serialize};

use super::building;
use crate::cloud::clo::{
    Clo, CloError, Flavor, Keypair, Made, NewDisk, NewServer, ServerStatus, adopt_or_create,
    look_for,
};
use crate::cluster::Cluster;
use crate::engine::{Again, Ctx, JobError, Poll};
use crate::ssh::keys::{HostKey, generate_host_key};

/// The server of a node, with the host keys it may show.
#[derive(Debug, Clone)]
pub(super) struct NodeServer {
    pub(super) id: String,
    pub(super) host_keys: Vec<String>,
    /// We made it in this recovery: its local disks are blank.
    pub(super) fresh: bool,
}

/// What was decided before the server was touched.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "decided", rename_all = "kebab-case")]
enum Intent {
    /// It is there and we know its host keys.
    Adopt { id: String, host_keys: Vec<String> },
    /// It is not there; it will be made with this host key.
    Create { host_key: String },
}

/// How the build of a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Built {
    Active,
    Failed,
}

/// Servers that go to ERROR are replaced, but not for ever.
const MOST_FAILED: u32 = 6;

/// A create that was refused costs its host key, and so does a process that dies before it: the next
/// try begins with a new one, later and later. This many tries take more than half an hour.
const MOST_UNMADE: u32 = 12;

/// The longest pause before such a try.
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);

/// The image by what it is: ids differ between projects and change over time.
pub(super) async fn find_image(ctx: &Ctx, clo: &Clo) -> Result<String, JobError> {
    let want = &ctx.spec().servers.image;
    let same =
        |a: &Option<String>, b: &str| a.as_deref().is_some_and(|a| a.eq_ignore_ascii_case(b));
    let images = clo.list_images().await?;
    let fits = images.iter().filter(|image| {
        let os = image.operation_system.as_ref();
        os.is_some_and(|os| {
            same(&os.distribution, &want.distribution) && same(&os.version, &want.version)
        })
    });
    // The same system may be there several times; the list is sorted, so all nodes take the same.
    match fits.map(|image| image.id.clone()).next() {
        Some(id) => Ok(id),
        None => {
            let have = images.iter().filter_map(|i| {
                let os = i.operation_system.as_ref()?;
                Some(format!(
                    "{} {}",
                    os.distribution.as_deref()?,
                    os.version.as_deref()?
                ))
            });
            let have = have.collect::<Vec<_>>().join(", ");
            Err(JobError::fatal(format!(
                "the project has no image {} {} (servers.image); it has {have}",
                want.distribution, want.version
            )))
        }
    }
}

/// The key pair by name, made from our own key when there is none. One of that name with another
/// key is an error: servers made with it would not let us in.
///
/// The cloud takes any number of key pairs of one name, and all nodes begin at the same moment. So
/// the first provision job of the plan makes it, and the others wait until it is there.
pub(super) async fn keypair(ctx: &Ctx, clo: &Clo) -> Result<String, JobError> {
    let maker = ctx
        .plan()
        .jobs()
        .iter()
        .find(|job| matches!(job.payload, Job::Provision(_)));
    let ours = ctx
        .world()
        .ssh_key()?
        .public_key()
        .to_openssh()
        .map_err(JobError::fatal)?;
    let name = &ctx.spec().servers.keypair;
    match maker {
        Some(maker) if maker.name != *ctx.job() => {
            let look = || async {
                let named = keypairs(clo, name, &ours).await?;
                if let Some(pair) = named.first() {
                    return Ok(Poll::Ready(fitting(pair, &ours)?));
                }
                // Nobody is going to make it once its maker has failed.
                let series = keys::job(ctx.cluster(), ctx.recovery(), &maker.name);
                let made_by = ctx.store().read_job(&series).await?;
                if made_by.is_some_and(|made_by| made_by.record.status.is_stuck()) {
                    return Err(JobError::fatal(format!(
                        "there is no key pair `{name}`, and `{}`, which makes it, has failed: retry both",
                        maker.name
                    )));
                }
                Ok::<_, JobError>(Poll::Pending(format!(
                    "`{}` has not made key pair `{name}` yet",
                    maker.name
                )))
            };
            ctx.wait("keypair", building(ctx), look).await
        }
        _ => {
            ctx.step("keypair", || ensure_keypair(ctx, clo, name, &ours))
                .await
        }
    }
}

async fn ensure_keypair(ctx: &Ctx, clo: &Clo, name: &str, ours: &str) -> Result<String, JobError> {
    let made = adopt_or_create(
        &format!("key pair {name}"),
        || keypairs(clo, name, ours),
        || clo.create_keypair(name, ours),
        ctx.settle(),
    )
    .await?;
    match made {
        Made::Created(id) => Ok(id),
        Made::Adopted(pair) => fitting(&pair, ours),
    }
}

/// Those of that name. Of several, the first one with our key is everybody's choice: another
/// cluster of the project may have made one at the same time, and the same key is as good.
async fn keypairs(clo: &Clo, name: &str, ours: &str) -> Result<Vec<Keypair>, CloError> {
    let mut named = clo.list_keypairs().await?;
    named.retain(|pair| pair.name == name);
    let same = |pair: &&Keypair| {
        pair.public_key
            .as_deref()
            .is_some_and(|line| essence(line) == essence(ours))
    };
    Ok(match named.iter().find(same) {
        Some(pair) => vec![pair.clone()],
        None => named,
    })
}

fn fitting(pair: &Keypair, ours: &str) -> Result<String, JobError> {
    match &pair.public_key {
        Some(line) if essence(line) != essence(ours) => Err(JobError::fatal(format!(
            "key pair `{}` (servers.keypair) of the project has another public key than this worker's SSH key",
            pair.name
        ))),
        _ => Ok(pair.id.clone()),
    }
}

/// An OpenSSH line without its comment.
fn essence(line: &str) -> String {
    line.split_whitespace()
        .take(2)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Finds or makes the server and waits until it is up.
pub(super) async fn ensure(
    ctx: &Ctx,
    clo: &Clo,
    node: &Node,
    image: &str,
    keypair: &str,
) -> Result<NodeServer, JobError> {
    let mut keys: Vec<String> = Vec::new();
    let (mut failed, mut unmade) = (0, 0);
    for attempt in 0_u32.. {
        if failed == MOST_FAILED || unmade == MOST_UNMADE {
            break;
        }
        // The private half never leaves this process but in the server's user data.
        let mut private: Option<HostKey> = None;
        let intent: Intent = ctx
            .step(("server-intent", attempt), || {
                decide(ctx, clo, node, &mut private)
            })
            .await?;
        let (id, fresh) = match intent {
            Intent::Adopt { id, host_keys } => {
                keys = host_keys;
                (id, false)
            }
            Intent::Create { host_key } => {
                keys.push(host_key);
                let made: Option<String> = ctx
                    .step(("server", attempt), || {
                        let pause = pause_after(unmade, ctx.world().settle.every);
                        let made = make(ctx, clo, node, image, keypair, private);
                        async move { made.await.map_err(|e| not_before(e, pause)) }
                    })
                    .await?;
                match made {
                    Some(id) => (id, true),
                    // The key of this intent is lost and no server was made with it.
                    None => {
                        unmade += 1;
                        continue;
                    }
                }
            }
        };
        let built = ctx
            .wait(("active", attempt), building(ctx), || look(clo, &id))
            .await?;
        if built == Built::Active {
            return Ok(NodeServer {
                id,
                host_keys: keys,
                fresh,
            });
        }
        if !fresh {
            let text = format!(
                "server {id} of node `{}` is in ERROR; look at it in the cloud, delete it, then `rekindle retry --from server-intent/{attempt}`",
                node.name
            );
            return Err(JobError::needs_approval(text));
        }
        failed += 1;
        ctx.step(("discard", attempt), || discard(clo, node, &id))
            .await?;
        ctx.wait(("discarded", attempt), building(ctx), || is_gone(clo, &id))
            .await?;
    }
    Err(JobError::fatal(format!(
        "no server for node `{}`: {failed} could not be built and were deleted, {unmade} could not be made; when the cloud can, `rekindle retry --from server-intent/0`",
        node.name
    )))
}

/// How long to leave the cloud alone after so many tries that made nothing.
fn pause_after(unmade: u32, first: Duration) -> Duration {
    first.saturating_mul(1 << unmade.min(16)).min(LONGEST_PAUSE)
}

fn not_before(error: JobError, pause: Duration) -> JobError {
    let again = match error.again {
        Again::Retry { after } => Again::Retry {
            after: Some(after.map_or(pause, |after| after.max(pause))),
        },
        other => other,
    };
    JobError { again, ..error }
}

/// Looks, and decides: by the id that we have on record, else by name.
async fn decide(
    ctx: &Ctx,
    clo: &Clo,
    node: &Node,
    private: &mut Option<HostKey>,
) -> Result<Intent, JobError> {
    let record = Cluster::of(ctx).node(&node.name).await?;
    if let Some(record) = &record
        && let Some(server) = clo.server(&record.server).await?
        && server.status != ServerStatus::Deleting
    {
        if server.name != node.name.as_str() {
            return Err(JobError::needs_approval(format!(
                "server {} is on record for `{}` but is called `{}`",
                server.id, node.name, server.name
            )));
        }
        return Ok(Intent::Adopt {
            id: server.id,
            host_keys: record.host_keys.clone(),
        });
    }
    let named = clo.servers_named(node.name.as_str()).await?;
    if let Some(stranger) = named.iter().find(|s| s.status != ServerStatus::Deleting) {
        return Err(JobError::needs_approval(format!(
            "the cloud has a server `{}` ({}) that we have no record of, so its host key cannot be verified: delete or rename it",
            node.name, stranger.id
        )));
    }
    let key = generate_host_key()?;
    let host_key = key.public.clone();
    *private = Some(key);
    Ok(Intent::Create { host_key })
}

/// Makes the server, or finds the one that an earlier try of ours made. `None` when there is none
/// and the key for it is gone: then the next intent begins with a new key.
async fn make(
    ctx: &Ctx,
    clo: &Clo,
    node: &Node,
    image: &str,
    keypair: &str,
    private: Option<HostKey>,
) -> Result<Option<String>, JobError> {
    let named = || clo.servers_named(node.name.as_str());
    let settle = ctx.world().settle;
    let Some(key) = private else {
        let looks = settle.after_a_lost_turn();
        let found = look_for(&format!("server {}", node.name), &named, looks).await?;
        return Ok(found.map(|server| server.id));
    };
    let new = NewServer {
        name: node.name.to_string(),
        flavor: Flavor {
            ram: node.ram_gb,
            vcpus: node.vcpus,
            cpu_type: None,
        },
        image: Some(image.to_owned()),
        storages: disks(node),
        addresses: Vec::new(),
        keypairs: vec![keypair.to_owned()],
        user_data: Some(user_data(&key)),
    };
    let made = adopt_or_create(
        &format!("server {}", node.name),
        named,
        || clo.create_server(&new),
        settle,
    )
    .await?;
    Ok(Some(made.id().to_owned()))
}

/// The boot disk, and the disks that live and die with the server.
fn disks(node: &Node) -> Vec<NewDisk> {
    let word = |storage: Storage| match storage {
        Storage::Network => "storage",
        Storage::Local => "local",
    };
    let boot = NewDisk {
        size: node.boot_disk.size_gb.into(),
        bootable: true,
        storage_type: word(node.boot_disk.storage).into(),
    };
    let local = node
        .data_disks
        .iter()
        .filter(|disk| disk.storage == Storage::Local);
    let local = local.map(|disk| NewDisk {
        size: disk.size_gb.into(),
        bootable: false,
        storage_type: word(Storage::Local).into(),
    });
    std::iter::once(boot).chain(local).collect()
}

/// cloud-init's `ssh` module takes the host key from here and makes no other one.
/// Source: cloud-init documentation, module "SSH", keys `ssh_deletekeys` and `ssh_keys`.
fn user_data(key: &HostKey) -> String {
    let indented: String = key
        .private
        .expose()
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    format!(
        "#cloud-config\nssh_deletekeys: true\ndisable_root: false\nssh_keys:\n  ed25519_private: |\n{indented}  ed25519_public: {}\n",
        key.public
    )
}

async fn look(clo: &Clo, id: &str) -> Result<Poll<Built>, JobError> {
    Ok(match clo.server(id).await? {
        // A read right after the create may lag behind; the deadline decides.
        None => Poll::Pending(format!("the cloud does not show server {id}")),
        Some(server) => match server.status {
            ServerStatus::Active => Poll::Ready(Built::Active),
            ServerStatus::Error => Poll::Ready(Built::Failed),
            other => Poll::Pending(format!("server {id} is {other}")),
        },
    })
}

/// Deletes a server that we made in this recovery and that never came up, with its boot disk.
/// No data volume was attached to it: that comes later.
async fn discard(clo: &Clo, node: &Node, id: &str) -> Result<(), JobError> {
    let Some(server) = clo.server(id).await? else {
        return Ok(());
    };
    if server.name != node.name.as_str() {
        return Err(JobError::fatal(format!(
            "server {id} is called `{}`, not `{}`: it is left alone",
            server.name, node.name
        )));
    }
    let mut boot = Vec::new();
    for disk in server.network_volumes() {
        if clo
            .volume(disk)
            .await?
            .is_some_and(|volume| volume.bootable)
        {
            boot.push(disk);
        }
    }
    clo.delete_server(id, &boot, &[]).await?;
    Ok(())
}

async fn is_gone(clo: &Clo, id: &str) -> Result<Poll<()>, JobError> {
    Ok(match clo.server(id).await? {
        None => Poll::Ready(()),
        Some(server) => Poll::Pending(format!("server {id} is {}", server.status)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cloud_that_makes_nothing_is_asked_less_and_less_often_for_half_an_hour() {
        let first = Duration::from_secs(5);
        let pauses: Vec<Duration> = (0..MOST_UNMADE).map(|n| pause_after(n, first)).collect();
        assert_eq!(pauses[..3], [5, 10, 20].map(Duration::from_secs));
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE));
        assert!(pauses.iter().sum::<Duration>() > Duration::from_secs(30 * 60));
        let busy = JobError::retry("busy").leaves(jobs::record::LeftBehind::Nothing);
        let again = not_before(busy, first).again;
        assert_eq!(again, Again::Retry { after: Some(first) });
        let refused = not_before(JobError::fatal("no"), first).again;
        assert_eq!(refused, Again::Fatal);
    }

    #[test]
    fn user_data_is_a_cloud_config_with_the_host_key() {
        let key = generate_host_key().expect("a key");
        let text = user_data(&key);
        assert!(text.starts_with("#cloud-config\n"));
        assert!(text.contains("  ed25519_private: |\n    -----BEGIN OPENSSH PRIVATE KEY-----\n"));
        assert!(text.contains(&format!("  ed25519_public: {}\n", key.public)));
    }
}
