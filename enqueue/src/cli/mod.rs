//! The command line as clap sees it. What the commands do stands in `commands`.

mod kubernetes;
mod load;

pub(crate) use kubernetes::{
    BackupJob, FluxBootstrap, FluxFolder, Kubeconfig, PutSecret, Release, RestoreJob, Switch,
    WaitCertificates, Wish, key,
};
pub(crate) use load::LoadJob;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use jiff::SignedDuration;
use jobs::ids::{ClusterName, JobName, NodeName, RecoveryId, StepKey};
use jobs::images::Platform;
use jobs::spec::Role;
use jobs::user::UserName;

use worker::config::{CloudArgs, QueueArgs, StoreArgs, WorldArgs};

/// Brings Kubernetes clusters back from what is in S3: posts jobs, controls recoveries, reads state
#[derive(Debug, Parser)]
#[command(name = "rekindle", version, after_help = crate::exit::HELP)]
pub(crate) struct Cli {
    /// How results are printed; logs and errors go to stderr
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        display_order = 900
    )]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Text,
    /// One JSON document; `watch` prints JSON lines
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the recovery of a whole cluster, or attach to it
    Recover(Recover),
    /// Create or adopt servers, volumes and addresses of some nodes
    Provision(OnNodes),
    /// Make the load balancer and its rules right
    LoadBalancer(Single),
    /// Prove that SSH answers on some nodes with the pinned host key
    Reachability(OnNodes),
    /// Mount the data volumes of some nodes
    Mount(OnNodes),
    /// Set owner, group and mode of some nodes' mount points
    Permissions(OnNodes),
    /// Put container images into the bucket, for installs without their registries
    MirrorImages(MirrorJob),
    /// Install Kubernetes with Kubespray, or bring it to what the spec says
    Kubespray(Single),
    /// Take one node out of Kubernetes with Kubespray; its machine stays
    RemoveNode(RemoveNode),
    /// Update the operating systems, one node after the other; all but the bastion, where the run lives
    OsUpdate(OsUpdate),
    /// Give a person access to the nodes with an SSH key, or take it away
    AddUser(AddUser),
    /// Install Flux, give it its secrets, and wait until what it applies stands
    FluxBootstrap(FluxBootstrap),
    /// Change the values of a release by its switch: freeze, thaw, or any of them
    Switch(Switch),
    /// Bring the database back from its backups, prove its data, and thaw the applications
    Restore(RestoreJob),
    /// Make the restored database the one that later recoveries restore from
    Promote(Single),
    /// Make a backup of the database and prove that it is in the bucket
    Backup(BackupJob),
    /// Wait until certificates are there, and say why when they are not
    WaitCertificates(WaitCertificates),
    /// Write keys of a Kubernetes Secret; its other keys stay
    Secret(PutSecret),
    /// Bring another image of an application into service, or the former one back
    Release(Release),
    /// Load the application from outside, say whether it bore that, and take away what was made for it
    LoadTest(LoadJob),
    /// Delete what load tests left at Yandex Cloud past its time to live: only what carries our label
    Reap(Single),
    /// Write a report on the last recovery that did something
    Report(Single),
    /// Run a job without effects, to watch crash and resume
    Demo(DemoJob),
    /// Show the jobs of a plan and what each one needs; changes nothing
    Plan(Plan),
    /// Check a spec and a plan; every problem with its path
    Validate(Validate),
    /// Show a recovery: each job, and why it stands where it stands
    Status(Status),
    /// Follow a recovery until it is settled
    Watch(Watch),
    /// Put failed jobs back, and post every job that is due
    Retry(Retry),
    /// End a recovery: running jobs stop at their next step
    Cancel(Cancel),
    /// Let no job of a recovery begin another step
    Pause(Control),
    /// Let a paused recovery go on
    Resume(Resume),
    /// List clusters and their recoveries
    List(List),
    /// Check the connections to store, queue and cloud
    Doctor(Doctor),
    /// Remove what lies in the queue or in its dead queue: wake-ups only, S3 keeps all jobs
    Purge(Purge),
    /// Make the key pair that secrets are sealed with: the private half for workers, into a file
    Keygen(Keygen),
    /// Open a cluster's kubeconfig, which its recovery sealed to the workers' key
    Kubeconfig(Kubeconfig),
    /// Print the completion script of a shell
    Completions(Completions),
    /// Print the JSON schema of cluster.yaml
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct Recover {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// The cluster's spec
    #[arg(long, value_name = "FILE")]
    pub(crate) spec: PathBuf,
    /// The plan; the built-in one for a whole recovery when absent
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) flux: FluxFolder,
    /// The k6 script of the load test; ours when absent
    #[arg(long, value_name = "FILE")]
    pub(crate) load_script: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) begin: Begin,
    // Last: its heading would stand over what comes after it.
    #[command(flatten)]
    pub(crate) wish: Wish,
}

/// What every command that starts a recovery takes.
#[derive(Debug, Args)]
pub(crate) struct Begin {
    /// Idempotency key: the same key of the same cluster is the same recovery
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) key: Option<String>,
    #[command(flatten)]
    pub(crate) follow: Follow,
    // Last: its heading would stand over what comes after it.
    #[command(flatten)]
    pub(crate) secrets: SecretArgs,
}

/// What a recovery is given that only workers may see.
#[derive(Debug, Args)]
#[command(next_help_heading = "Secrets")]
pub(crate) struct SecretArgs {
    /// The workers' public key, `age1…`, from `rekindle keygen`: secrets are sealed to it
    #[arg(
        long,
        env = "REKINDLE_RECIPIENT",
        value_name = "KEY",
        hide_short_help = true
    )]
    pub(crate) recipient: Option<String>,
    /// Seal a secret: `NAME=@FILE`, or `NAME` for the environment variable; may be repeated.
    /// With --recipient, SOPS_AGE_KEY, CLUSTER_S3_ACCESS_KEY, CLUSTER_S3_SECRET_KEY, GITHUB_TOKEN,
    /// ACME_EMAIL and DOMAIN are sealed whenever they are set
    #[arg(long, value_name = "NAME[=@FILE]", hide_short_help = true)]
    pub(crate) secret: Vec<String>,
}

/// A new pair of keys.
#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// Where the private key goes; the file must not be there yet
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// What every command that posts takes.
#[derive(Debug, Args)]
pub(crate) struct Follow {
    /// Wait until the recovery is settled
    #[arg(long)]
    pub(crate) wait: bool,
    /// Give up waiting after this time, for example `90s`, `30m` or `2h`
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Run the jobs in this process and wait: no broker, the same state in S3
    #[arg(long)]
    pub(crate) here: bool,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
    #[command(flatten)]
    pub(crate) world: WorldArgs,
}

impl Follow {
    /// Whether the command goes on until the recovery is settled.
    pub(crate) fn waits(&self) -> bool {
        self.wait || self.here
    }
}

#[derive(Debug, Args)]
pub(crate) struct Cluster {
    /// The cluster
    #[arg(
        long = "cluster",
        env = "REKINDLE_CLUSTER",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub(crate) name: ClusterName,
}

/// A recovery that is there already.
#[derive(Debug, Args)]
pub(crate) struct Target {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// The recovery; the active one when absent, or else the last one
    #[arg(long, value_name = "ID")]
    pub(crate) recovery: Option<RecoveryId>,
}

/// A single job for the whole cluster.
#[derive(Debug, Args)]
pub(crate) struct Single {
    #[command(flatten)]
    pub(crate) cluster: Cluster,
    /// The cluster's spec; the one that was applied last when absent
    #[arg(long, value_name = "FILE")]
    pub(crate) spec: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) begin: Begin,
}

/// One job for each chosen node.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("nodes").required(true).multiple(true).args(["node", "group", "role", "all"])))]
pub(crate) struct OnNodes {
    #[command(flatten)]
    pub(crate) select: Select,
    #[command(flatten)]
    pub(crate) single: Single,
}

/// Chooses nodes: the union of what is named.
#[derive(Debug, Default, Args)]
pub(crate) struct Select {
    /// A node, by name; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Vec<NodeName>,
    /// All nodes of a group (prefix); may be repeated
    #[arg(long, value_name = "PREFIX")]
    pub(crate) group: Vec<String>,
    /// All nodes of a role: master, worker or bastion
    #[arg(long, value_name = "ROLE", value_parser = role)]
    pub(crate) role: Vec<Role>,
    /// All nodes
    #[arg(long, conflicts_with_all = ["node", "group", "role"])]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveNode {
    /// The node, by name; the spec still has it
    #[arg(long, value_name = "NAME")]
    pub(crate) node: NodeName,
    /// Its machine is gone or does not answer: remove it without a word to it
    #[arg(long)]
    pub(crate) dead: bool,
    #[command(flatten)]
    pub(crate) single: Single,
}

#[derive(Debug, Args)]
pub(crate) struct OsUpdate {
    /// Reboot each node, also when no package wants it
    #[arg(long)]
    pub(crate) reboot: bool,
    #[command(flatten)]
    pub(crate) select: Select,
    #[command(flatten)]
    pub(crate) single: Single,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("access").required(true).args(["key_file", "revoke"])))]
pub(crate) struct AddUser {
    /// The account
    #[arg(long = "name", value_name = "USER")]
    pub(crate) user: UserName,
    /// The person's public SSH key, such as `id_ed25519.pub`; it replaces the one before
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// The person may become root
    #[arg(long, conflicts_with = "revoke")]
    pub(crate) sudo: bool,
    /// Take key and sudo away, end all sessions and lock the account; its files stay
    #[arg(long)]
    pub(crate) revoke: bool,
    #[command(flatten)]
    pub(crate) select: Select,
    #[command(flatten)]
    pub(crate) single: Single,
}

#[derive(Debug, Args)]
pub(crate) struct MirrorJob {
    /// The images: a full name with tag, digest or both a line, as Kubespray's contrib/offline lists them
    #[arg(long, value_name = "FILE")]
    pub(crate) images: PathBuf,
    /// A platform to mirror; may be repeated
    #[arg(
        long = "platform",
        value_name = "OS/ARCH",
        default_value = "linux/amd64"
    )]
    pub(crate) platforms: Vec<Platform>,
    /// Read every byte back in the proof, and not those of a sample
    #[arg(long)]
    pub(crate) read_all: bool,
    #[command(flatten)]
    pub(crate) single: Single,
}

#[derive(Debug, Args)]
pub(crate) struct DemoJob {
    /// How many steps it has
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) steps: u32,
    /// How many milliseconds each step takes
    #[arg(long, value_name = "MS", default_value_t = 200, value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    pub(crate) step_ms: u64,
    /// The step, from 0, at which the worker process aborts
    #[arg(long, value_name = "STEP")]
    pub(crate) abort_at: Option<u32>,
    /// The step, from 0, that fails for good
    #[arg(long, value_name = "STEP")]
    pub(crate) fail_at: Option<u32>,
    #[command(flatten)]
    pub(crate) select: Select,
    #[command(flatten)]
    pub(crate) single: Single,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The cluster's spec
    #[arg(long, value_name = "FILE")]
    pub(crate) spec: PathBuf,
    /// The plan; the built-in one for a whole recovery when absent
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    /// Show what would change in the cloud, too; reads only
    #[arg(long)]
    pub(crate) cloud: bool,
    /// Show what one job would do: `restore` prints the backup sets, what it would take, and what is lost; reads only
    #[arg(long, value_name = "JOB", value_parser = ["restore"], conflicts_with = "cloud")]
    pub(crate) job: Option<String>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) clo: CloudArgs,
    // Last: its heading would stand over what comes after it.
    #[command(flatten)]
    pub(crate) wish: Wish,
}

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("files").required(true).multiple(true).args(["spec", "plan"])))]
pub(crate) struct Validate {
    /// The cluster's spec
    #[arg(long, value_name = "FILE")]
    pub(crate) spec: Option<PathBuf>,
    /// The plan; checked against the spec when both are given
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: Option<PathBuf>,
    /// A list of images to mirror; checked against the spec's Kubernetes
    #[arg(long, value_name = "FILE", requires = "spec")]
    pub(crate) images: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Show one job with its steps, waits, failure and history
    #[arg(long, value_name = "JOB")]
    pub(crate) job: Option<JobName>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Watch {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Give up after this time, for example `90s`, `30m` or `2h`
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    pub(crate) target: Target,
    /// One job; every job that failed when absent
    #[arg(long, value_name = "JOB")]
    pub(crate) job: Option<JobName>,
    /// Forget the results of this step and of all that finished after it
    #[arg(long, value_name = "STEP", requires = "job")]
    pub(crate) from: Option<StepKey>,
    /// Why; it stays in the job's history
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) follow: Follow,
}

/// Commands that set a flag and say why.
#[derive(Debug, Args)]
pub(crate) struct Control {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Why; it stays in the recovery's record
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// End it although load-test-clean-up has failed: what that should have taken away stays until its time is past
    #[arg(long)]
    pub(crate) abandon: bool,
    #[command(flatten)]
    pub(crate) control: Control,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) follow: Follow,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// One cluster only
    #[arg(
        long,
        env = "REKINDLE_CLUSTER",
        hide_env_values = true,
        value_name = "NAME"
    )]
    pub(crate) cluster: Option<ClusterName>,
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
    #[command(flatten)]
    pub(crate) world: WorldArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Purge {
    /// The queue to purge, by its full name: the work queue's or its dead queue's; a wrong one tells both
    #[arg(value_name = "QUEUE")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) queue: QueueArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "give a time such as `90s`, `30m` or `2h`".to_owned();
    let parsed: SignedDuration = text.parse().map_err(|_| wrong())?;
    match Duration::try_from(parsed) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(wrong()),
    }
}

fn role(text: &str) -> Result<Role, String> {
    serde_json::from_value(text.into())
        .map_err(|_| "there are `master`, `worker` and `bastion`".into())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_help_is_as_it_was() {
        let mut text = String::new();
        let mut command = Cli::command().term_width(100);
        command.build();
        for sub in command
            .get_subcommands_mut()
            .filter(|sub| sub.get_name() != "help")
        {
            let help = sub.render_help();
            text += &format!("$ rekindle {} -h\n{help}\n", sub.get_name());
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "90", "0s", "-5m", "soon"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
