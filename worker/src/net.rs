//! TCP connections to machines, directly or through a SOCKS5 proxy.
//!
//! Many bastion networks are reached through a proxy only. The proxy resolves the names then, for
//! `socks5://` as for `socks5h://`: names of the inner network mean nothing out here.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;

/// Why no connection came about. Each variant says who failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The proxy's address makes no sense.
    #[error("the proxy address: {reason}")]
    Setting {
        /// What is wrong with it; never repeats a password.
        reason: String,
    },
    /// The proxy itself cannot be reached.
    #[error("connect to {target}: the proxy {proxy} is not reachable")]
    Proxy {
        /// Where we wanted to go.
        target: String,
        /// The proxy that failed.
        proxy: String,
        /// Why.
        source: io::Error,
    },
    /// The proxy works, and says that it cannot or will not connect us.
    #[error("connect to {target}: the proxy {proxy} did not connect us")]
    ThroughProxy {
        /// The target that failed.
        target: String,
        /// The proxy that said so.
        proxy: String,
        /// Its words.
        source: tokio_socks::Error,
    },
    /// The target cannot be reached.
    #[error("connect to {target}")]
    Target {
        /// The target that failed.
        target: String,
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("connect to {target}: {waiting_for} did not answer within {after:?}")]
    Timeout {
        /// Where we wanted to go.
        target: String,
        /// Who was silent: the target, or the proxy.
        waiting_for: String,
        /// How long we waited.
        after: Duration,
    },
}

/// Opens TCP connections.
#[derive(Debug, Clone, Default)]
pub struct Dialer {
    proxy: Option<Proxy>,
}

#[derive(Clone)]
struct Proxy {
    host: String,
    port: u16,
    /// User and password.
    login: Option<(String, String)>,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&at(&self.host, self.port))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

impl Dialer {
    /// Connects directly.
    pub fn direct() -> Self {
        Self::default()
    }

    /// Connects through the proxy at `url`: `socks5://[user:password@]host[:1080]` (or `socks5h`).
    pub fn through(url: &str) -> Result<Self, DialError> {
        let setting = |reason: &str| DialError::Setting {
            reason: reason.to_owned(),
        };
        let url = reqwest::Url::parse(url.trim()).map_err(|e| setting(&e.to_string()))?;
        if !matches!(url.scheme(), "socks5" | "socks5h") {
            return Err(setting("expected socks5://host:port"));
        }
        let host = url.host_str().unwrap_or_default();
        if host.is_empty() || !matches!(url.path(), "" | "/") || url.query().is_some() {
            return Err(setting("expected socks5://host:port"));
        }
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => {
                let password = password.unwrap_or_default();
                let both = (percent_decoded(user), percent_decoded(password));
                let (Some(user), Some(password)) = both else {
                    return Err(setting("user or password is not valid percent-encoding"));
                };
                Some((user, password))
            }
        };
        let proxy = Proxy {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(1080),
            login,
        };
        Ok(Self { proxy: Some(proxy) })
    }

    /// Connects to `host` (a name or an address) within `timeout`, all steps together.
    pub async fn dial(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
    ) -> Result<TcpStream, DialError> {
        let target = at(host, port);
        let waiting_for = match &self.proxy {
            Some(proxy) => format!("the proxy {proxy}"),
            None => "it".to_owned(),
        };
        let stream = match tokio::time::timeout(timeout, self.connect(host, port, &target)).await {
            Ok(result) => result?,
            Err(_) => {
                return Err(DialError::Timeout {
                    target,
                    waiting_for,
                    after: timeout,
                });
            }
        };
        // SSH and HTTP/2 send many small packets. A socket that cannot be tuned is already dead,
        // and its first read says so better.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    async fn connect(&self, host: &str, port: u16, target: &str) -> Result<TcpStream, DialError> {
        let target = target.to_owned();
        let host = host.trim_matches(['[', ']']);
        let Some(proxy) = &self.proxy else {
            let connected = TcpStream::connect((host, port)).await;
            return connected.map_err(|source| DialError::Target { target, source });
        };
        let to_proxy = match TcpStream::connect((proxy.host.as_str(), proxy.port)).await {
            Ok(stream) => stream,
            Err(source) => {
                let proxy = proxy.to_string();
                return Err(DialError::Proxy {
                    target,
                    proxy,
                    source,
                });
            }
        };
        let connected = match &proxy.login {
            None => Socks5Stream::connect_with_socket(to_proxy, (host, port)).await,
            Some((user, password)) => {
                Socks5Stream::connect_with_password_and_socket(
                    to_proxy,
                    (host, port),
                    user,
                    password,
                )
                .await
            }
        };
        match connected {
            Ok(stream) => Ok(stream.into_inner()),
            Err(source) => Err(DialError::ThroughProxy {
                target,
                proxy: proxy.to_string(),
                source,
            }),
        }
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub(crate) fn at(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// URLs carry user and password percent-encoded.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    /// An address that nobody listens on.
    async fn nobody() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap()
    }

    /// Answers each connection with `hello`.
    async fn greeter() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.write_all(b"hello").await.unwrap();
            }
        });
        address
    }

    /// A SOCKS5 proxy that knows one name and reports what it was asked for.
    async fn proxy(inside: SocketAddr) -> (SocketAddr, tokio::sync::mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, names) = tokio::sync::mpsc::channel(10);
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut head = [0; 2];
                client.read_exact(&mut head).await.unwrap();
                let mut methods = vec![0; head[1].into()];
                client.read_exact(&mut methods).await.unwrap();
                client.write_all(&[5, 0]).await.unwrap();
                let mut request = [0; 5];
                client.read_exact(&mut request).await.unwrap();
                assert_eq!(request[3], 3, "the name must arrive as a name");
                let mut name = vec![0; usize::from(request[4]) + 2];
                client.read_exact(&mut name).await.unwrap();
                name.truncate(name.len() - 2);
                let name = String::from_utf8(name).unwrap();
                let known = name == "bastion.inner";
                asked.send(name).await.unwrap();
                let status = if known { 0 } else { 4 };
                client
                    .write_all(&[5, status, 0, 1, 0, 0, 0, 0, 0, 0])
                    .await
                    .unwrap();
                if known {
                    let mut server = TcpStream::connect(inside).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            }
        });
        (address, names)
    }

    async fn greeting(mut stream: TcpStream) -> String {
        let mut text = [0; 5];
        stream.read_exact(&mut text).await.unwrap();
        String::from_utf8(text.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn connects_directly() {
        let target = greeter().await;
        let stream = Dialer::direct()
            .dial("127.0.0.1", target.port(), LONG)
            .await
            .unwrap();
        assert_eq!(greeting(stream).await, "hello");
    }

    #[tokio::test]
    async fn a_dead_target_is_named() {
        let target = nobody().await;
        let error = Dialer::direct()
            .dial("127.0.0.1", target.port(), LONG)
            .await
            .unwrap_err();
        assert!(matches!(error, DialError::Target { .. }), "{error:?}");
        assert!(error.to_string().contains(&target.to_string()), "{error}");
    }

    #[tokio::test]
    async fn the_proxy_resolves_the_name() {
        for scheme in ["socks5", "socks5h"] {
            let (address, mut asked) = proxy(greeter().await).await;
            let dialer = Dialer::through(&format!("{scheme}://{address}")).unwrap();
            let stream = dialer.dial("bastion.inner", 22, LONG).await.unwrap();
            assert_eq!(greeting(stream).await, "hello");
            assert_eq!(asked.recv().await.unwrap(), "bastion.inner");
        }
    }

    #[tokio::test]
    async fn a_target_that_the_proxy_cannot_reach_is_told_from_a_dead_proxy() {
        let (address, _asked) = proxy(greeter().await).await;
        let dialer = Dialer::through(&format!("socks5://{address}")).unwrap();
        let error = dialer.dial("other.inner", 22, LONG).await.unwrap_err();
        assert!(matches!(error, DialError::ThroughProxy { .. }), "{error:?}");
        assert!(error.to_string().contains("other.inner:22"), "{error}");

        let dead = nobody().await;
        let dialer = Dialer::through(&format!("socks5://{dead}")).unwrap();
        let error = dialer.dial("bastion.inner", 22, LONG).await.unwrap_err();
        assert!(matches!(error, DialError::Proxy { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("bastion.inner:22") && text.contains(&dead.to_string()),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_silent_proxy_is_given_up() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialer =
            Dialer::through(&format!("socks5://{}", silent.local_addr().unwrap())).unwrap();
        let short = Duration::from_millis(20);
        let error = dialer.dial("bastion.inner", 22, short).await.unwrap_err();
        assert!(matches!(error, DialError::Timeout { .. }), "{error:?}");
        assert!(error.to_string().contains("the proxy"), "{error}");
    }

    #[test]
    fn proxy_addresses_are_checked_and_their_password_is_hidden() {
        for bad in [
            "",
            "127.0.0.1:1080",
            "http://127.0.0.1:1080",
            "socks5://",
            "socks5://h/path",
            "socks5://u:%zz@h",
        ] {
            assert!(Dialer::through(bad).is_err(), "{bad}");
        }
        let dialer = Dialer::through("socks5h://user:p%40ss@proxy.example").unwrap();
        assert_eq!(
            format!("{dialer:?}"),
            "Dialer { proxy: Some(Proxy(proxy.example:1080)) }"
        );
        let login = dialer.proxy.unwrap().login.unwrap();
        assert_eq!(login, ("user".to_owned(), "p@ss".to_owned()));
        let six = Dialer::through("socks5://[::1]:1081")
            .unwrap()
            .proxy
            .unwrap();
        assert_eq!(six.to_string(), "[::1]:1081");
    }
}
