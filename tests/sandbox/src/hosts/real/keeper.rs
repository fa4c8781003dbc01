//! The thread a lab lives in.
//!
//! It moves into a network namespace of its own and makes there what has to be made there:
//! sockets, which keep their namespace wherever they are used later, and child processes. It
//! is also the parent whose death ends the children (`PR_SET_PDEATHSIG` counts threads, and the
//! runtime's own come and go). So nothing has to be mounted or named to keep the namespace, and
//! nothing is left of it however this process ends.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, mpsc};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getpid, gettid};
use tokio::net::TcpSocket;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A handle on the thread; dropping it ends the thread and with it every child it started.
#[derive(Debug)]
pub(crate) struct Keeper {
    requests: Mutex<Option<(mpsc::Sender<Request>, JoinHandle<()>)>>,
    /// The network namespace, while the thread lives.
    net: PathBuf,
}

enum Request {
    Socket(oneshot::Sender<io::Result<TcpSocket>>),
    Spawn(Box<Command>, Handle, oneshot::Sender<io::Result<Child>>),
}

impl Keeper {
    /// Starts the thread, in a new network namespace if one is wanted.
    pub(crate) fn start(name: &str, own_network: bool) -> io::Result<Keeper> {
        let (requests, inbox) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let moved = if own_network {
                    unshare(CloneFlags::CLONE_NEWNET)
                } else {
                    Ok(())
                };
                let net = format!("/proc/{}/task/{}/ns/net", getpid(), gettid());
                let failed = moved.is_err();
                // The receiver waits below for exactly this message.
                let _ = ready.send(moved.map(|()| PathBuf::from(net)));
                if !failed {
                    serve(&inbox);
                }
            })?;
        let net = started.recv().map_err(io::Error::other)??;
        Ok(Keeper {
            requests: Mutex::new(Some((requests, thread))),
            net,
        })
    }

    /// Path of the network namespace, for tools that enter it.
    pub(super) fn net(&self) -> &PathBuf {
        &self.net
    }

    /// A socket of the lab's network.
    pub(super) async fn socket(&self) -> io::Result<TcpSocket> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Socket(reply))?;
        answer.await.map_err(|_| gone())?
    }

    /// Starts a command in the lab's network, as a child of the thread.
    pub(crate) async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Spawn(Box::new(command), Handle::current(), reply))?;
        answer.await.map_err(|_| gone())?
    }

    /// Ends the thread and waits until it is gone.
    pub(super) async fn stop(&self) {
        let parts = self
            .requests
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .take();
        if let Some((requests, thread)) = parts {
            drop(requests);
            // The thread only ever waits for requests, so this ends at once.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    fn send(&self, request: Request) -> io::Result<()> {
        let requests = self.requests.lock().unwrap_or_else(|e| e.into_inner());
        let (sender, _) = requests.as_ref().ok_or_else(gone)?;
        sender.send(request).map_err(|_| gone())
    }
}

fn serve(inbox: &mpsc::Receiver<Request>) {
    while let Ok(request) = inbox.recv() {
        // Who asked may have gone away; then the socket closes and the child is killed.
        match request {
            Request::Socket(reply) => drop(reply.send(TcpSocket::new_v4())),
            Request::Spawn(mut command, runtime, reply) => {
                let _entered = runtime.enter();
                drop(reply.send(command.spawn()));
            }
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the lab is shut down")
}
