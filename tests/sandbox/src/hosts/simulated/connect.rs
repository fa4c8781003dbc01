//! Connections to the ports of simulated servers.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::faults::Sshd;
use super::service::{Breakable, Service, answer_http};
use super::tap::{self, Cut, Tap};
use super::{Inner, kubernetes, ssh};
use crate::hosts::Stream;

/// How much may be on its way in one direction of a connection.
const PIPE: usize = 64 << 10;

impl Inner {
    /// Connects from a server: to what only nodes of its cluster know, or to the private network.
    pub(super) async fn open_from(
        self: &Arc<Self>,
        server: &str,
        to: SocketAddr,
    ) -> io::Result<Box<dyn Stream>> {
        let inside = {
            let world = self.world();
            let machine = world.find(server);
            let node = machine.filter(|machine| kubernetes::kubelet(machine).is_some());
            node.and_then(|machine| {
                let led = world.kubernetes.routed(to)?;
                Some((led, machine.life.child_token()))
            })
        };
        match inside {
            Some((led, life)) => {
                let stream = TcpStream::connect(led).await?;
                Ok(Box::new(Breakable::new(stream, life)))
            }
            None => self.open(to).await,
        }
    }

    /// Connects to a port of a private address.
    pub(super) async fn open(self: &Arc<Self>, to: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let (id, name, life, emergency) = {
            let world = self.world();
            let found = world.machines.values().find(|m| m.address == to.ip());
            let machine = found.ok_or(io::ErrorKind::HostUnreachable)?;
            let life = machine.life.child_token();
            (
                machine.id.clone(),
                machine.name.clone(),
                life,
                machine.emergency,
            )
        };
        if to.port() == 22 {
            let tap = self.tapped();
            let ticket = tap::before(&tap, || format!("connect {name}")).await;
            let ticket = ticket.map_err(|Cut| io::ErrorKind::ConnectionRefused)?;
            let opened = self.open_ssh(id, &name, life, emergency)?;
            // Cut after the connection stands: whoever was let in finds it gone.
            let after = tap::after(&tap, ticket).await;
            return after
                .map(|()| opened)
                .map_err(|Cut| io::ErrorKind::ConnectionReset.into());
        }
        match self.service(&name, to.port()) {
            None if to.port() == kubernetes::API_PORT => {
                let play = self.lock(&self.kubespray).clone();
                let api = kubernetes::api_on(&self.world(), &id, &play);
                let stream = api.ok_or(io::ErrorKind::ConnectionRefused)?.connect()?;
                Ok(Box::new(Breakable::new(stream, life)))
            }
            None => Err(io::ErrorKind::ConnectionRefused.into()),
            Some(Service::At(address)) => {
                let stream = TcpStream::connect(address).await?;
                Ok(Box::new(Breakable::new(stream, life)))
            }
            Some(Service::Http(text)) => {
                let (outside, inside) = tokio::io::duplex(PIPE);
                tokio::spawn(answer_http(inside, name, text));
                Ok(Box::new(Breakable::new(outside, life)))
            }
        }
    }

    pub(super) fn tapped(&self) -> Option<Arc<dyn Tap>> {
        self.lock(&self.tap).clone()
    }

    fn service(&self, server_name: &str, port: u16) -> Option<Service> {
        let services = self.lock(&self.services);
        services.get(&(server_name.to_owned(), port)).cloned()
    }

    fn open_ssh(
        self: &Arc<Self>,
        id: String,
        name: &str,
        connection: CancellationToken,
        emergency: bool,
    ) -> io::Result<Box<dyn Stream>> {
        let behaviour = self.faults.sshd_of(name);
        if emergency || behaviour == Some(Sshd::Refused) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (outside, inside) = tokio::io::duplex(PIPE);
        match behaviour {
            Some(Sshd::Silent) => {
                let until = connection.clone();
                tokio::spawn(async move {
                    until.cancelled().await;
                    drop(inside);
                });
            }
            Some(_) => drop(inside),
            None => {
                tokio::spawn(ssh::serve(self.clone(), id, inside, connection.clone()));
            }
        }
        Ok(Box::new(Breakable::new(outside, connection)))
    }
}
