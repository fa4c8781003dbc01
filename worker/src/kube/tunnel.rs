//! Which way leads to the API server: straight, or through one of the masters.
//!
//! Each master has an API server on its loopback. A connection to it is a channel of the SSH
//! connection to that master. When a master does not answer the next one is asked; when it shows a
//! wrong host key that is an error for a person, and no other master is asked.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::connect::{ConnectError, chain};
use super::kubeconfig::{ADMIN_CONF, Kubeconfig, KubeconfigError};
use crate::engine::JobError;
use crate::net::Dialer;
use crate::ssh::{Ssh, SshError};

/// How long a master may take to connect us to a port of its own.
pub(super) const CONNECT: Duration = Duration::from_secs(10);

/// The port of an API server that kubeadm sets up. A kubeconfig may name the port of a load balancer.
const API_PORT: u16 = 6443;

/// The masters of a cluster, and how to log in to them.
#[async_trait]
pub trait Masters: Send + Sync + fmt::Debug {
    /// Their names, in the order in which they are asked.
    fn names(&self) -> Vec<String>;

    /// A connection to one of them, by its place in the order. One that is open is shared; one that
    /// broke is made anew.
    async fn ssh(&self, place: usize) -> Result<Ssh, JobError>;
}

/// The way to the API server.
#[derive(Debug)]
pub(super) enum Way {
    /// Straight to this host and port.
    Direct {
        dialer: Dialer,
        host: String,
        port: u16,
    },
    /// Through the masters.
    Tunnel(Tunnels),
}

/// Channels through the masters.
#[derive(Debug)]
pub(super) struct Tunnels {
    masters: Arc<dyn Masters>,
    ports: Vec<u16>,
    /// The one that led to the API last time.
    first: AtomicUsize,
}

/// One channel to try, and whose it is.
pub(super) struct Candidate {
    pub(super) place: usize,
    pub(super) name: String,
}

impl Tunnels {
    /// Through `masters`, beginning with the one at `first`, to the port of the kubeconfig or else
    /// kubeadm's.
    pub(super) fn new(masters: Arc<dyn Masters>, first: usize, port: u16) -> Self {
        let mut ports = vec![port];
        if port != API_PORT {
            ports.push(API_PORT);
        }
        Self {
            masters,
            ports,
            first: AtomicUsize::new(first),
        }
    }

    /// The masters in the order to try them: the one that worked last, then the others.
    pub(super) fn candidates(&self) -> Vec<Candidate> {
        let names = self.masters.names();
        let first = self.first.load(Ordering::Relaxed);
        let mut all: Vec<_> = names
            .into_iter()
            .enumerate()
            .map(|(place, name)| Candidate { place, name })
            .collect();
        if first < all.len() {
            all.rotate_left(first);
        }
        all
    }

    /// Remembers the master that led to the API.
    pub(super) fn worked(&self, candidate: &Candidate) {
        self.first.store(candidate.place, Ordering::Relaxed);
    }

    /// Opens a channel to the API server of one master. The inner error is one after which the next
    /// master may be asked.
    pub(super) async fn open(
        &self,
        master: &Candidate,
    ) -> Result<Result<crate::ssh::Tunnel, SshError>, ConnectError> {
        let refused = |error: JobError| ConnectError::Master {
            master: master.name.clone(),
            error,
        };
        // A shared connection that broke shows it only when it is used: then once more on a new one.
        let mut fresh = false;
        loop {
            let ssh = match self.masters.ssh(master.place).await {
                Ok(ssh) => ssh,
                Err(error) => return unreachable(error).map(Err).map_err(refused),
            };
            match self.channel(&ssh).await {
                Err(SshError::Cut { .. }) if !fresh && ssh.is_closed() => fresh = true,
                Err(error) if !error.is_unreachable() => return Err(refused(error.into())),
                opened => return Ok(opened),
            }
        }
    }

    async fn channel(&self, ssh: &Ssh) -> Result<crate::ssh::Tunnel, SshError> {
        let mut opened = ssh.tunnel("127.0.0.1", self.ports[0], CONNECT).await;
        for port in &self.ports[1..] {
            // The port of the kubeconfig is a load balancer's; nobody listens on it here.
            if !matches!(
                opened,
                Err(SshError::Forward {
                    target_down: true,
                    ..
                })
            ) {
                break;
            }
            opened = ssh.tunnel("127.0.0.1", *port, CONNECT).await;
        }
        opened
    }
}

/// No master gave its kubeconfig away; another time one may.
#[derive(Debug, thiserror::Error)]
#[error("fetch {ADMIN_CONF}: {}", if tried.is_empty() { "the cluster has no master".to_owned() } else { tried.join("; ") })]
pub struct NoKubeconfig {
    /// The masters, and what each one said.
    pub tried: Vec<String>,
    /// Whether one of them let us in: then its API may answer, too.
    pub answered: bool,
}

/// The administrator's kubeconfig, from the first master that has it, and that master's place. The inner error is one
/// after which another way may be tried.
pub(super) async fn fetch(
    masters: &dyn Masters,
) -> Result<Result<(Kubeconfig, usize), NoKubeconfig>, JobError> {
    let (mut tried, mut answered) = (Vec::new(), false);
    for (place, name) in masters.names().iter().enumerate() {
        let ssh = match masters.ssh(place).await {
            Ok(ssh) => ssh,
            Err(error) => {
                let silent = unreachable(error)?;
                tried.push(format!("{name}: {}", chain(&silent)));
                continue;
            }
        };
        match Kubeconfig::fetch(&ssh).await {
            Ok(config) => return Ok(Ok((config, place))),
            // It may be there on a master that joined earlier.
            Err(KubeconfigError::Fetch(error))
                if error.is_unreachable() || error.is_command_failure() =>
            {
                answered |= error.is_command_failure();
                tried.push(format!("{name}: {}", chain(&error)));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Err(NoKubeconfig { tried, answered }))
}

/// The SSH error that means "this master does not answer"; anything else is the job's.
fn unreachable(error: JobError) -> Result<SshError, JobError> {
    let JobError {
        again,
        left_behind,
        step,
        cause,
    } = error;
    match cause.downcast::<SshError>() {
        Ok(ssh) if ssh.is_unreachable() => Ok(*ssh),
        Ok(other) => Err(JobError {
            again,
            left_behind,
            step,
            cause: other,
        }),
        Err(cause) => Err(JobError {
            again,
            left_behind,
            step,
            cause,
        }),
    }
}
