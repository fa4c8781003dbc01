//! A session with the database that can only read, and what it answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jobs::store::Secret;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::error::{PostgresError, words, wrong_certificate};
use super::way;
use crate::kube::Masters;
use crate::net::at;
use crate::ssh::Tunnel;

/// How long the server may work at an answer.
const ANSWER: Duration = Duration::from_secs(300);
/// How long logging in may take once the server is reached.
const LOG_IN: Duration = Duration::from_secs(20);
/// Most characters of an answer that are kept: it is a number, a name or a time.
const MOST: usize = 200;

/// A server, and how we prove to each other who we are.
#[derive(Clone)]
pub struct Server {
    masters: Arc<dyn Masters>,
    host: String,
    port: u16,
    name: String,
    user: String,
    password: Secret,
    tls: MakeRustlsConnect,
}

/// What a query gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// One row with one column, as text; nothing when it is NULL.
    Value(Option<String>),
    /// Something else than one row with one column.
    Shape(String),
    /// The server's error, with its code. Asking again brings the same.
    Refused(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(Some(value)) => write!(f, "`{value}`"),
            Self::Value(None) => f.write_str("NULL"),
            Self::Shape(what) => f.write_str(what),
            Self::Refused(why) => write!(f, "the error: {why}"),
        }
    }
}

impl Server {
    /// The server that the masters reach at `host:port`. Its certificate must be for `name` and of one of the
    /// authorities (PEM).
    ///
    /// # Errors
    /// When there is no usable authority.
    pub fn new(
        masters: Arc<dyn Masters>,
        (host, port): (String, u16),
        name: String,
        authorities: &[u8],
        (user, password): (String, Secret),
    ) -> Result<Self, PostgresError> {
        let bad = |reason: String| PostgresError::Setting {
            what: "the authority of the database's cluster".into(),
            reason,
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities) {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| bad(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(bad("it holds no certificate in PEM".into()));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows the versions of TLS")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self {
            masters,
            host,
            port,
            name,
            user,
            password,
            tls: MakeRustlsConnect::new(tls),
        })
    }

    /// Logs in to one of its databases.
    ///
    /// # Errors
    /// When no master leads there, it does not let us in, or it is somebody else.
    pub async fn log_in(&self, database: &str) -> Result<Session, PostgresError> {
        let failed = |reason: String| PostgresError::LogIn {
            database: database.to_owned(),
            user: self.user.clone(),
            reason,
        };
        let mut tls = self.tls.clone();
        let tls = MakeTlsConnect::<Tunnel>::make_tls_connect(&mut tls, &self.name);
        let tls = tls.map_err(|error| failed(error.to_string()))?;
        let stream = way::open(&self.masters, &self.host, self.port).await?;

        let connecting = self.settings(database);
        let connecting = connecting.connect_raw(stream, tls);
        let (client, connection) = match tokio::time::timeout(LOG_IN, connecting).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(error)) => {
                return Err(match wrong_certificate(&error) {
                    Some(reason) => PostgresError::Untrusted {
                        target: format!("{} ({})", at(&self.host, self.port), self.name),
                        reason,
                    },
                    None => failed(words(&error)),
                });
            }
            Err(_) => return Err(failed(format!("no answer within {LOG_IN:?}"))),
        };
        // It ends with the client; what it ends with, a query says.
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Session {
            client,
            connection,
            database: database.to_owned(),
        })
    }

    /// Every session can only read, and no query runs for ever. Times come in UTC and as ISO 8601 has them.
    fn settings(&self, database: &str) -> Config {
        let mut config = Config::new();
        let timeout = ANSWER.as_millis();
        config
            .user(&self.user)
            .password(self.password.reveal())
            .dbname(database)
            .application_name("rekindle")
            .options(format!(
                "-c default_transaction_read_only=on -c statement_timeout={timeout} -c timezone=UTC \
                 -c datestyle=ISO"
            ))
            .ssl_mode(SslMode::Require);
        config
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({} as {})", self.name, self.user)
    }
}

/// An open session with one database.
#[derive(Debug)]
pub struct Session {
    client: Client,
    connection: JoinHandle<()>,
    database: String,
}

impl Session {
    /// Asks for one value.
    ///
    /// # Errors
    /// When no answer came, or the server says that it may come later.
    pub async fn ask(&self, sql: &str) -> Result<Answer, PostgresError> {
        let cut = |reason: String| PostgresError::Cut {
            database: self.database.clone(),
            reason,
        };
        // The server ends a query itself; only one that is gone says nothing.
        let asking = tokio::time::timeout(ANSWER + LOG_IN, self.client.simple_query(sql));
        match asking.await {
            Ok(Ok(messages)) => Ok(one_value(&messages)),
            Ok(Err(error)) => match error.as_db_error() {
                Some(said) if !may_pass(said.code().code()) => Ok(Answer::Refused(words(&error))),
                _ => Err(cut(words(&error))),
            },
            Err(_) => Err(cut(format!("no answer within {:?}", ANSWER + LOG_IN))),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Whether the same query may be answered later: the connection (08), a conflict with another transaction (40),
/// resources (53), an operator's intervention such as a restart (57), the system (58). A query that took too long
/// (57014) is among them.
fn may_pass(code: &str) -> bool {
    ["08", "40", "53", "57", "58"]
        .iter()
        .any(|class| code.starts_with(class))
}

fn one_value(messages: &[SimpleQueryMessage]) -> Answer {
    let (mut sets, mut rows, mut columns, mut value) = (0, 0, 0, None);
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(described) => {
                sets += 1;
                columns = described.len();
            }
            SimpleQueryMessage::Row(row) => {
                rows += 1;
                value = row.try_get(0).ok().flatten().map(shorten);
            }
            _ => {}
        }
    }
    match (sets, rows, columns) {
        (1, 1, 1) => Answer::Value(value),
        (0, ..) => Answer::Shape("no rows: it is not a query".into()),
        (1, ..) => Answer::Shape(format!(
            "{rows} rows with {columns} columns instead of one row with one column"
        )),
        _ => Answer::Shape(format!("the answers of {sets} queries instead of one")),
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_restart_or_a_load_causes_may_pass_and_a_wrong_query_not() {
        for code in [
            "08006", "40001", "53300", "57014", "57P01", "57P03", "58000",
        ] {
            assert!(may_pass(code), "{code}");
        }
        for code in [
            "42P01", "42501", "42703", "22012", "25006", "55000", "28P01",
        ] {
            assert!(!may_pass(code), "{code}");
        }
    }

    #[test]
    fn a_long_answer_is_cut_between_characters() {
        let long = "ü".repeat(MOST + 1);
        assert_eq!(shorten(&long).chars().count(), MOST + 1);
        assert!(shorten(&long).ends_with('…'));
        assert_eq!(shorten("12"), "12");
    }

    #[test]
    fn without_an_authority_there_is_no_server() {
        #[derive(Debug)]
        struct None;
        #[async_trait::async_trait]
        impl Masters for None {
            fn names(&self) -> Vec<String> {
                vec![]
            }
            async fn ssh(&self, _: usize) -> Result<crate::ssh::Ssh, crate::engine::JobError> {
                Err(crate::engine::JobError::fatal("there is none"))
            }
        }
        let server = |pem: &[u8]| {
            let login = ("u".to_owned(), Secret::new("p"));
            let at = ("10.0.0.1".to_owned(), 5432);
            Server::new(Arc::new(None), at, "db.pg.svc".into(), pem, login)
        };
        for pem in ["", "-----BEGIN NOTHING-----"] {
            let error = server(pem.as_bytes()).expect_err("no certificate");
            assert!(error.to_string().contains("authority"), "{error}");
        }
    }
}
