//! The way to the database: a channel from one of the masters to the Service's address, which every node of the
//! cluster can reach.

use std::sync::Arc;
use std::time::Duration;

use super::error::PostgresError;
use crate::engine::JobError;
use crate::kube::Masters;
use crate::net::at;
use crate::ssh::{SshError, Tunnel};

/// How long a master may take to connect us.
pub(super) const CONNECT: Duration = Duration::from_secs(10);

/// Opens a channel to `host:port` through the first master that leads there.
pub(super) async fn open(
    masters: &Arc<dyn Masters>,
    host: &str,
    port: u16,
) -> Result<Tunnel, PostgresError> {
    let mut tried = Vec::new();
    for (place, master) in masters.names().into_iter().enumerate() {
        match through(masters, place, host, port).await {
            Ok(tunnel) => return Ok(tunnel),
            Err(error) if is_unreachable(&error) => {
                tried.push(format!("{master}: {}", error.chain().join(": ")));
            }
            Err(error) => return Err(PostgresError::Master { master, error }),
        }
    }
    Err(PostgresError::NoWay {
        target: at(host, port),
        tried,
    })
}

async fn through(
    masters: &Arc<dyn Masters>,
    place: usize,
    host: &str,
    port: u16,
) -> Result<Tunnel, JobError> {
    let ssh = masters.ssh(place).await?;
    match ssh.tunnel(host, port, CONNECT).await {
        // A shared connection that broke shows it only when it is used: then once more on a new one.
        Err(SshError::Cut { .. }) if ssh.is_closed() => {
            let ssh = masters.ssh(place).await?;
            Ok(ssh.tunnel(host, port, CONNECT).await?)
        }
        opened => Ok(opened?),
    }
}

/// After this error the next master may be asked: a wrong host key is not one.
fn is_unreachable(error: &JobError) -> bool {
    let ssh = error.cause.downcast_ref::<SshError>();
    ssh.is_some_and(|ssh| ssh.is_unreachable() || matches!(ssh, SshError::Forward { .. }))
}
