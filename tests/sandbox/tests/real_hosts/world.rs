//! Hosts of a test, and sessions on them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};

use russh::ChannelMsg;
use russh::client::{self, Handle};
use russh::keys::{
    Algorithm, PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate, ssh_key,
};
use sandbox::hosts::real::{Options, RealHosts};
use sandbox::hosts::{Boot, Hosts, Stream};

pub(super) struct World {
    pub(super) hosts: RealHosts,
    pub(super) key: Arc<PrivateKey>,
}

impl World {
    pub(super) async fn start() -> World {
        World::with(Options::from_env().unwrap()).await
    }

    pub(super) async fn below(labs: &Path) -> World {
        World::with(Options {
            labs: labs.to_owned(),
            ..Options::from_env().unwrap()
        })
        .await
    }

    pub(super) async fn with(options: Options) -> World {
        let hosts = RealHosts::start(options).await.unwrap();
        World {
            hosts,
            key: Arc::new(private_key()),
        }
    }

    pub(super) fn boot(&self, name: &str, number: u8) -> Boot {
        Boot {
            server: name.to_owned(),
            name: name.to_owned(),
            address: Ipv4Addr::new(10, 77, 0, number),
            user_data: None,
            authorized_keys: vec![self.key.public_key().to_openssh().unwrap()],
            disks: BTreeMap::new(),
        }
    }

    pub(super) async fn ssh(&self, number: u8) -> (Handle<Client>, PublicKey) {
        self.login(self.hosts.connect(address(number)).await.unwrap())
            .await
    }

    pub(super) async fn login(&self, stream: Box<dyn Stream>) -> (Handle<Client>, PublicKey) {
        let presented = Arc::new(Mutex::new(None));
        let client = Client {
            presented: Arc::clone(&presented),
        };
        let mut session = client::connect_stream(Arc::default(), stream, client)
            .await
            .unwrap();
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&self.key), None);
        assert!(
            session
                .authenticate_publickey("root", key)
                .await
                .unwrap()
                .success()
        );
        let presented = presented.lock().unwrap().take().unwrap();
        (session, presented)
    }
}

pub(super) fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 77, 0, number], 22))
}

pub(super) fn private_key() -> PrivateKey {
    PrivateKey::random(&mut rand::rng(), Algorithm::Ed25519).unwrap()
}

pub(super) fn cloud_config(key: &PrivateKey) -> String {
    let private = key.to_openssh(ssh_key::LineEnding::LF).unwrap();
    let private: String = private
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    let public = key.public_key().to_openssh().unwrap();
    format!("#cloud-config\nssh_keys:\n  ed25519_private: |\n{private}  ed25519_public: {public}\n")
}

pub(super) struct Client {
    presented: Arc<Mutex<Option<PublicKey>>>,
}

impl client::Handler for Client {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        if let PublicKeyOrCertificate::PublicKey { key, .. } = key {
            *self.presented.lock().unwrap() = Some(key.clone());
        }
        Ok(true)
    }
}

/// What a command writes on stdout; it must succeed or say nothing about it.
pub(super) async fn run(session: &Handle<Client>, command: &str) -> String {
    let mut channel = session.channel_open_session().await.unwrap();
    channel.exec(true, command).await.unwrap();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => stdout.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, .. } => stderr.extend_from_slice(&data),
            _ => {}
        }
    }
    if !stderr.is_empty() {
        eprintln!("{command}: {}", String::from_utf8_lossy(&stderr));
    }
    String::from_utf8(stdout).unwrap()
}
