//! What runs on one cluster, whichever API it has: the operators, the database that they restore, and the shop.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;

use super::bucket::OverHttp;
use super::estate::{DISK, Estate};
use crate::ca::Ca;
use crate::operators::app::{App, AppFaults, AppSettings};
use crate::operators::cert_manager::CertManager;
use crate::operators::kubelet::Kubelet;
use crate::operators::percona::{Archives, Faults, Percona, Settings};
use crate::operators::{Controller, Operators, Pace, flux};
use crate::postgres::{Data, Disks, Server, Tls};
use crate::world::Sandbox;

/// What a crew needs of its world, to begin whenever a cluster stands.
#[derive(Debug, Clone)]
pub struct Surroundings {
    bucket: OverHttp,
    archives: Archives,
    flux: flux::Settings,
    /// What is wrong with the shop, on whatever cluster it runs.
    pub(super) shop: AppFaults,
}

/// All that runs on one cluster. It ends when this is dropped.
#[derive(Debug)]
pub struct Crew {
    disks: Disks,
    operators: Operators,
    database: Server,
    shop: App,
}

impl Surroundings {
    /// Those of a world and what is left in its bucket.
    pub fn new(sandbox: &Sandbox, estate: &Estate) -> Self {
        let sealed = estate.sealed.clone();
        let (access, secret) = (sandbox.s3.access_key(), sandbox.s3.secret_key());
        Self {
            bucket: OverHttp::by_any_name(sandbox),
            archives: estate.archives.clone(),
            flux: flux::Settings::new(
                flux::Login::new("git", &estate.token),
                flux::Login::new(access, secret),
                Arc::new(move |_| Some(sealed.clone())),
            ),
            shop: AppFaults::default(),
        }
    }

    /// Begins on a cluster. `primary` is the address that the database's Service gets; somebody has to lead it to
    /// [`Crew::database`].
    ///
    /// # Errors
    /// When no port of the loopback is free.
    pub async fn begin(&self, client: Client, primary: &str) -> anyhow::Result<Crew> {
        let disks = Disks::default();
        let mut percona = Percona::new(
            Settings {
                disks: disks.clone(),
                archives: self.archives.clone(),
                bucket: Arc::new(self.bucket.clone()),
                ca: Ca::new("postgres-operator-ca")?,
                taints: vec![(
                    "postgresqltaint".into(),
                    "yestaint".into(),
                    "NoSchedule".into(),
                )],
                addresses: [("pg/pg-db-ha".to_owned(), primary.to_owned())].into(),
            },
            Faults::default(),
        );
        let tls = Tls::new(&percona.certificate_of("pg", "pg-db")?)?;
        let database = Server::start(&disks, DISK, tls).await?;
        let rows = {
            let disks = disks.clone();
            Arc::new(move || {
                let rows = disks.get(DISK).data().map(Data::rows);
                rows.map(|rows| format!("{rows} rows"))
            })
        };
        let storefront = AppSettings::storefront(rows);
        let shop = App::with_faults(client.clone(), storefront, self.shop.clone()).await?;
        let mut controllers: Vec<Box<dyn Controller>> = flux::controllers(&self.flux);
        controllers.push(Box::new(Kubelet::default()));
        controllers.push(Box::new(percona));
        let authority = Ca::new("the sandbox's Let's Encrypt")?;
        controllers.push(Box::new(CertManager::new(authority, Default::default())));
        Ok(Crew {
            operators: Operators::start(client, pace(), controllers),
            disks,
            database,
            shop,
        })
    }
}

impl Crew {
    /// Where the database listens on this machine.
    pub fn database(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.database.port()).into()
    }

    /// Where the shop listens on this machine.
    pub fn shop(&self) -> SocketAddr {
        self.shop.address()
    }

    /// The rows of the database, if it runs.
    pub fn rows(&self) -> Option<usize> {
        self.disks.get(DISK).data().map(Data::rows)
    }

    /// How often a living database was written over.
    pub fn destroyed(&self) -> u32 {
        self.disks.get(DISK).destroyed
    }

    /// What operators could not do in their last tick, a line each.
    pub fn errors(&self) -> String {
        self.operators.errors()
    }
}

pub(super) fn pace() -> Pace {
    Pace {
        every: Duration::from_millis(50),
        ..Pace::default()
    }
}
