//! A port of the machine's loopback that a host finds on its own.
//!
//! A socket stays in the network namespace it was made in, so a thread goes there, makes one that
//! listens, and ends. What is accepted is carried to the same port out here.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};

use anyhow::Context;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Dropping it closes the port and all connections, and lets the namespace go.
#[derive(Debug)]
pub(super) struct Loan {
    task: JoinHandle<()>,
}

impl Loan {
    /// Opens a port in the network of a host's PID 1.
    pub(super) async fn start(host: Pid, port: u16) -> anyhow::Result<Loan> {
        let network =
            File::open(format!("/proc/{host}/ns/net")).context("open the host's network")?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        // A thread of its own: one of the runtime's would have to find its way back.
        let inside = std::thread::spawn(move || -> anyhow::Result<StdListener> {
            setns(&network, CloneFlags::CLONE_NEWNET).context("enter the host's network")?;
            let listener = StdListener::bind(address).context("listen in the host")?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        let listener = tokio::task::spawn_blocking(move || inside.join())
            .await?
            .map_err(|_| anyhow::anyhow!("the thread in the host's network panicked"))??;
        let listener = TcpListener::from_std(listener)?;
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut inside, _)) = listener.accept().await {
                while open.try_join_next().is_some() {}
                open.spawn(async move {
                    // Who does not listen out here is not there; the host sees its connection end.
                    if let Ok(mut outside) = TcpStream::connect(address).await {
                        let _ = copy_bidirectional(&mut inside, &mut outside).await;
                    }
                });
            }
        });
        Ok(Loan { task })
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.task.abort();
    }
}
