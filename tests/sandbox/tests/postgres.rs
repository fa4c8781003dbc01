//! The small PostgreSQL, asked by a real client: who is let in, and that its answers are those of a real one.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sandbox::ca::Ca;
use sandbox::postgres::{Content, Data, Disks, Role, Server, Table, Tls};
use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

const DEADLINE: Duration = Duration::from_secs(60);
const DISK: &str = "pg/pg-db";
const NAME: &str = "localhost";

struct Lab {
    ca: Ca,
    disks: Disks,
    server: Server,
}

impl Lab {
    async fn start(data: Data) -> Self {
        let ca = Ca::new("database").unwrap();
        let day = Duration::from_secs(86_400);
        let (from, to) = (Timestamp::now() - day, Timestamp::now() + day);
        let signed = ca.sign(&[NAME.to_owned()], from, to).unwrap();
        let disks = Disks::default();
        disks.with(DISK, |disk| {
            disk.content = Content::Data(Box::new(data));
            disk.running = true;
        });
        let server = Server::start(&disks, DISK, Tls::new(&signed).unwrap())
            .await
            .unwrap();
        Self { ca, disks, server }
    }

    fn config(&self, user: &str, password: &str) -> Config {
        let mut config = Config::new();
        config
            .host(NAME)
            .hostaddr("127.0.0.1".parse().unwrap())
            .port(self.server.port());
        config.user(user).password(password).dbname("postgres");
        config.ssl_mode(tokio_postgres::config::SslMode::Require);
        config
    }

    async fn connect(&self, config: &Config) -> Result<Client, tokio_postgres::Error> {
        trusting(config, &self.ca.pem()).await
    }
}

async fn trusting(config: &Config, ca: &str) -> Result<Client, tokio_postgres::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn data(rows: &[Timestamp]) -> Data {
    let mut data = Data::initdb();
    let role = |password: &str, superuser| Role {
        password: Some(password.to_owned()),
        superuser,
    };
    data.roles = [
        ("postgres", role("root's", true)),
        ("plain", role("no|=,secret", false)),
    ]
    .map(|(name, role)| (name.to_owned(), role))
    .into();
    let table = |rows: &[Timestamp], readers: &[&str]| Table {
        column: "ts".into(),
        rows: rows.to_vec(),
        readers: readers.iter().map(|reader| (*reader).to_owned()).collect(),
    };
    let tables = data.databases.get_mut("postgres").unwrap();
    tables.insert(
        ("public".into(), "heartbeat".into()),
        table(rows, &["plain"]),
    );
    tables.insert(("public".into(), "hidden".into()), table(rows, &[]));
    tables.insert(("public".into(), "empty".into()), table(&[], &["plain"]));
    data
}

fn words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => {
            let position = match error.position() {
                Some(tokio_postgres::error::ErrorPosition::Original(at)) => format!(" at {at}"),
                _ => String::new(),
            };
            format!("{} {}{position}", error.code().code(), error.message())
        }
        None => format!("{error:?}"),
    }
}

/// The answer as text, through the simple protocol.
async fn simple(client: &Client, query: &str) -> Result<Vec<Vec<Option<String>>>, String> {
    let messages = client
        .simple_query(query)
        .await
        .map_err(|error| words(&error))?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(
            (0..row.len())
                .map(|at| row.get(at).map(str::to_owned))
                .collect(),
        ),
        _ => None,
    });
    Ok(rows.collect())
}

/// The names and types of the answer, and how many rows there are, through the extended one.
async fn extended(client: &Client, query: &str) -> Result<(Vec<String>, usize), String> {
    let error = |error| words(&error);
    let statement = client.prepare(query).await.map_err(error)?;
    let columns = statement
        .columns()
        .iter()
        .map(|column| format!("{} {}", column.name(), column.type_()));
    let columns = columns.collect();
    let rows = client.query(&statement, &[]).await.map_err(error)?;
    Ok((columns, rows.len()))
}

#[tokio::test]
async fn a_client_that_knows_the_password_reads_what_lies_on_the_disk() {
    let newest: Timestamp = "2026-11-23T05:10:28.5Z".parse().unwrap();
    let lab = Lab::start(data(&[newest - Duration::from_secs(5), newest])).await;
    let system_id = match lab.disks.get(DISK).content {
        Content::Data(data) => data.system_id,
        other => panic!("{other:?}"),
    };
    let client = lab
        .connect(&lab.config("plain", "no|=,secret"))
        .await
        .unwrap();
    let row = client
        .query_one("select system_identifier from pg_control_system()", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i64>(0).cast_unsigned(), system_id);
    let row = client
        .query_one("select timeline_id from pg_control_checkpoint()", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i32>(0), 1);
    let row = client
        .query_one("select pg_is_in_recovery()", &[])
        .await
        .unwrap();
    assert!(!row.get::<_, bool>(0));
    let row = client
        .query_one("select count(*), max(ts)::text from heartbeat", &[])
        .await
        .unwrap();
    assert_eq!(
        (row.get::<_, i64>(0), row.get(1)),
        (2, "2026-11-23 05:10:28.5+00")
    );
    let row = client
        .query_one("select max(ts) from heartbeat", &[])
        .await
        .unwrap();
    let at: std::time::SystemTime = row.get(0);
    assert_eq!(Timestamp::try_from(at).unwrap(), newest);
    let row = client
        .query_one("select max(ts) from empty", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, Option<std::time::SystemTime>>(0), None);

    // It is the disk that answers, not a memory of it.
    assert!(lab.disks.insert(
        DISK,
        "postgres",
        "heartbeat",
        newest + Duration::from_secs(5)
    ));
    let rows = simple(&client, "select count(*) from heartbeat")
        .await
        .unwrap();
    assert_eq!(rows, [[Some("3".to_owned())]]);
    // After an error a connection goes on.
    let error = extended(&client, "select count(*) from nosuch")
        .await
        .unwrap_err();
    assert!(error.starts_with("42P01"), "{error}");
    let error = extended(&client, "select count(*) from hidden")
        .await
        .unwrap_err();
    assert_eq!(error, "42501 permission denied for table hidden");
    assert!(simple(&client, "").await.unwrap().is_empty());
    assert!(
        extended(&client, "select count(*) from heartbeat")
            .await
            .is_ok()
    );

    // PostgreSQL is stopped under it.
    lab.disks.with(DISK, |disk| disk.running = false);
    assert!(simple(&client, "select 1").await.is_err());
    let error = lab
        .connect(&lab.config("plain", "no|=,secret"))
        .await
        .unwrap_err();
    assert!(words(&error).starts_with("57P03"), "{}", words(&error));
    assert!(!lab.disks.insert(DISK, "postgres", "heartbeat", newest));
}

#[tokio::test]
async fn nobody_else_is_let_in() {
    let lab = Lab::start(data(&[])).await;
    for (user, password) in [("plain", "wrong"), ("nobody", "no|=,secret"), ("plain", "")] {
        let error = lab.connect(&lab.config(user, password)).await.unwrap_err();
        let words = words(&error);
        let expected = format!("28P01 password authentication failed for user \"{user}\"");
        assert!(words == expected || password.is_empty(), "{words}");
    }
    let mut other = lab.config("plain", "no|=,secret");
    let error = lab.connect(other.dbname("nosuch")).await.unwrap_err();
    assert_eq!(words(&error), "3D000 database \"nosuch\" does not exist");
    // Without TLS.
    let mut open = lab.config("plain", "no|=,secret");
    let open = open.ssl_mode(tokio_postgres::config::SslMode::Disable);
    let error = open.connect(NoTls).await.err().unwrap();
    assert!(
        words(&error).starts_with("28000 no pg_hba.conf entry"),
        "{}",
        words(&error)
    );
    // A server that is not of this authority, and one of another name.
    let other = Ca::new("database").unwrap();
    assert!(
        trusting(&lab.config("plain", "no|=,secret"), &other.pem())
            .await
            .is_err()
    );
    let mut named = lab.config("plain", "no|=,secret");
    let mut elsewhere = Config::new();
    elsewhere
        .host("other.example")
        .hostaddr("127.0.0.1".parse().unwrap())
        .port(lab.server.port());
    elsewhere
        .user("plain")
        .password("no|=,secret")
        .dbname("postgres");
    elsewhere.ssl_mode(tokio_postgres::config::SslMode::Require);
    assert!(lab.connect(&elsewhere).await.is_err());
    // With and without channel binding.
    for binding in [
        tokio_postgres::config::ChannelBinding::Require,
        tokio_postgres::config::ChannelBinding::Disable,
    ] {
        assert!(
            lab.connect(named.channel_binding(binding)).await.is_ok(),
            "{binding:?}"
        );
    }
}

/// A real PostgreSQL on a socket in a folder that goes away. In a process namespace of its own, nothing of it outlives
/// this test; it does not run as root, so for it we are somebody else.
struct Real {
    process: Child,
    root: TempDir,
}

impl Real {
    fn start() -> Self {
        let root = TempDir::with_prefix("pg-").unwrap();
        let script = r#"
            set -eu
            bin=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
            "$bin/initdb" -D "$1/data" -A trust -U postgres --no-sync >/dev/null
            exec "$bin/postgres" -D "$1/data" -c listen_addresses= -c unix_socket_directories="$1" \
                -c fsync=off -c track_commit_timestamp=on -c timezone=UTC
        "#;
        let process = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "unshare",
                "--user",
                "--map-user=postgres",
                "--map-group=postgres",
            ])
            .args(["--pid", "--fork", "--kill-child", "bash", "-c", script, "-"])
            .arg(root.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, root }
    }

    async fn connect(&mut self, user: &str) -> Client {
        let mut config = Config::new();
        config
            .host_path(self.root.path())
            .user(user)
            .dbname("postgres");
        let deadline = std::time::Instant::now() + DEADLINE;
        loop {
            match config.connect(NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    return client;
                }
                Err(error) => {
                    assert_eq!(self.process.try_wait().unwrap(), None, "it ended");
                    assert!(std::time::Instant::now() < deadline, "{error:?}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What people ask to see what a restore brought back, and what goes wrong there.
const QUERIES: [&str; 26] = [
    "select system_identifier from pg_control_system()",
    "select timeline_id from pg_control_checkpoint()",
    "select pg_is_in_recovery()",
    "select * from pg_is_in_recovery()",
    "select count(*) from heartbeat",
    "select max(ts) from heartbeat",
    "select count(*) as n, min(ts)::text from public.heartbeat;",
    "select ts from heartbeat h",
    "select max(ts) from empty",
    "select max(pg_xact_commit_timestamp(xmin)) from empty",
    "select count(*) from hidden",
    "select max(ts) from hidden",
    "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)",
    "select xid, timestamp from pg_last_committed_xact()",
    "select system_identifier::text from pg_control_system()",
    "select 1, 'a'",
    "",
    "selec 1",
    "select count(*) frm heartbeat",
    "select count(*",
    "select count(*) from nosuch",
    "select count(*) from Heartbeat2",
    "select max(nocol) from heartbeat",
    "select nofunc()",
    "select count(*) from nofunc()",
    "select count(*), ts from heartbeat",
];

#[tokio::test]
async fn heavy_its_answers_are_those_of_a_real_one() {
    let mut real = Real::start();
    let root = real.connect("postgres").await;
    root.batch_execute(
        "create table heartbeat (ts timestamptz); create table hidden (ts timestamptz); \
         create table empty (ts timestamptz); create role plain login; \
         grant select on heartbeat, empty to plain; \
         insert into heartbeat values ('2026-11-23 05:10:27.5+00'), ('2026-11-23 05:10:28+00'); \
         insert into hidden select * from heartbeat",
    )
    .await
    .unwrap();
    let rows = ["2026-11-23T05:10:27.5Z", "2026-11-23T05:10:28Z"].map(|at| at.parse().unwrap());
    let mut same = data(&rows);
    let row = root
        .query_one("select system_identifier from pg_control_system()", &[])
        .await
        .unwrap();
    same.system_id = row.get::<_, i64>(0).cast_unsigned();
    let row = &simple(&root, "select timestamp from pg_last_committed_xact()")
        .await
        .unwrap()[0];
    let last = row[0]
        .clone()
        .unwrap()
        .replace(' ', "T")
        .replace("+00", "Z");
    same.last_commit = Some(last.parse().unwrap());
    let lab = Lab::start(same).await;

    let mut differences = Vec::new();
    for (user, password) in [("postgres", "root's"), ("plain", "no|=,secret")] {
        let theirs = real.connect(user).await;
        let ours = lab.connect(&lab.config(user, password)).await.unwrap();
        for query in QUERIES {
            let (mut mine, mut its) = (simple(&ours, query).await, simple(&theirs, query).await);
            if query.contains("xid") {
                // The number of a transaction is the only thing that cannot be the same.
                for answer in [&mut mine, &mut its].into_iter().flatten() {
                    answer[0][0] = None;
                }
            }
            if mine != its {
                differences.push(format!("{user}: {query}: {mine:?}, not {its:?}"));
            }
            let (mine, its) = (extended(&ours, query).await, extended(&theirs, query).await);
            if mine != its {
                differences.push(format!("{user}, extended: {query}: {mine:?}, not {its:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
