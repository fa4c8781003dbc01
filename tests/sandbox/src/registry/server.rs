//! A small registry on loopback: it keeps what is pushed into it, asks who is there, fails on request,
//! and remembers who asked for what. The tests of the runner, which know no sandbox, have this file too.

#![allow(clippy::unwrap_used, reason = "it serves tests, which end with it")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Whom the registry lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Everybody.
    Open,
    /// Who shows a token of `/token`, where everybody gets one.
    Token,
    /// Who shows a token of `/token`, where alice gets one.
    TokenOfAlice,
    /// Alice, by her password.
    Alice,
}

/// What goes wrong with one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// An answer without a body.
    Status(u16),
    /// The connection breaks after so many bytes of the body.
    Cut(usize),
    /// The rest comes when the server is released.
    Stall(usize),
    /// Another body, of another length maybe.
    Body(Vec<u8>),
    /// Another body, and its length is not said.
    Unsized(Vec<u8>),
    /// The object is elsewhere.
    Redirect(String),
    /// From now on, the tokens so far are not known any more.
    Forget,
}

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// With its query.
    pub path: String,
    /// Who is there.
    pub authorization: Option<String>,
    /// Where it wants to begin.
    pub range: Option<usize>,
}

#[derive(Debug)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    door: Door,
    /// By a part of the path; used once, in order.
    faults: Vec<(String, Fault)>,
    requests: Vec<Request>,
    tokens: u32,
    valid_from: u32,
    /// The repositories whose door was shown to somebody: tokens are for these.
    challenged: BTreeSet<String>,
    released: bool,
    down: bool,
}

/// A registry that runs until the process ends.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Host and port.
    pub address: String,
    shared: Arc<(Mutex<State>, Condvar)>,
}

/// Alice's password must never be printed.
pub const PASSWORD: &str = "hunter2:with:colons";

impl Registry {
    /// Starts one that is empty.
    pub fn start(door: Door) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = State {
            objects: BTreeMap::new(),
            door,
            faults: Vec::new(),
            requests: Vec::new(),
            tokens: 0,
            valid_from: 0,
            challenged: BTreeSet::new(),
            released: false,
            down: false,
        };
        let registry = Self {
            address,
            shared: Arc::new((Mutex::new(state), Condvar::new())),
        };
        let shared = registry.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let registry = shared.clone();
                // A client that goes away is part of the tests.
                thread::spawn(move || drop(registry.serve(stream.unwrap())));
            }
        });
        registry
    }

    /// The repository of the runner's tests.
    pub fn url(&self) -> String {
        format!("oci+http://{}/team/app", self.address)
    }

    /// Puts something under a path, instead of what is there.
    pub fn put(&self, path: &str, body: &[u8]) {
        self.lock().objects.insert(path.to_owned(), body.to_vec());
    }

    /// The next request for a path that contains this fails.
    pub fn fail(&self, path: impl Into<String>, fault: Fault) {
        self.lock().faults.push((path.into(), fault));
    }

    /// Removes whatever has a path that contains this.
    pub fn remove(&self, path: &str) {
        self.lock().objects.retain(|there, _| !there.contains(path));
    }

    /// From now on it hangs up on everybody, or no longer does.
    pub fn set_down(&self, down: bool) {
        self.lock().down = down;
    }

    /// All that was asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.lock().requests.clone()
    }

    /// How often a path that contains this was asked for.
    pub fn count(&self, path: &str) -> usize {
        let requests = self.requests();
        requests
            .iter()
            .filter(|request| request.path.contains(path))
            .count()
    }

    /// Lets what stalls go on.
    pub fn release(&self) {
        self.lock().released = true;
        self.shared.1.notify_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.0.lock().unwrap()
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let request = read_request(&mut BufReader::new(stream.try_clone()?))?;
        let (fault, body, allowed) = {
            let mut state = self.lock();
            state.requests.push(request.clone());
            if state.down {
                return Ok(());
            }
            let at = state
                .faults
                .iter()
                .position(|(path, _)| request.path.contains(path.as_str()));
            let fault = at.map(|at| state.faults.remove(at).1);
            if matches!(fault, Some(Fault::Forget)) {
                state.valid_from = state.tokens + 1;
            }
            let body = match request.path.split_once('?') {
                Some(("/token", query)) => state.token(query, request.authorization.as_deref()),
                _ => state.objects.get(&request.path).cloned(),
            };
            let allowed = request.path.starts_with("/token") || state.lets_in(&request);
            (fault, body, allowed)
        };
        match &fault {
            Some(Fault::Status(status)) => return head(&mut stream, *status, "", Some(0)),
            Some(Fault::Redirect(to)) => {
                return head(&mut stream, 307, &format!("Location: {to}\r\n"), Some(0));
            }
            _ => {}
        }
        if !allowed {
            return head(&mut stream, 401, &self.challenge(&request.path), Some(0));
        }
        match &fault {
            Some(Fault::Body(other)) => {
                head(&mut stream, 200, "", Some(other.len()))?;
                return stream.write_all(other);
            }
            Some(Fault::Unsized(other)) => {
                head(&mut stream, 200, "", None)?;
                return stream.write_all(other);
            }
            _ => {}
        }
        let Some(body) = body else {
            let status = if request.path.starts_with("/token") {
                401
            } else {
                404
            };
            return head(&mut stream, status, "", Some(0));
        };
        let from = request.range.unwrap_or(0).min(body.len());
        let rest = &body[from..];
        match request.range {
            None => head(&mut stream, 200, "", Some(rest.len()))?,
            Some(_) => {
                let (last, total) = (body.len() - 1, body.len());
                let range = format!("Content-Range: bytes {from}-{last}/{total}\r\n");
                head(&mut stream, 206, &range, Some(rest.len()))?;
            }
        }
        match fault {
            Some(Fault::Cut(after)) => stream.write_all(&rest[..after.min(rest.len())]),
            Some(Fault::Stall(after)) => {
                stream.write_all(&rest[..after])?;
                stream.flush()?;
                let state = self.lock();
                drop(
                    self.shared
                        .1
                        .wait_while(state, |state| !state.released)
                        .unwrap(),
                );
                stream.write_all(&rest[after..])
            }
            _ => stream.write_all(rest),
        }
    }

    fn challenge(&self, path: &str) -> String {
        let mut state = self.lock();
        if state.door == Door::Alice {
            return "WWW-Authenticate: Basic realm=\"r\"\r\n".to_owned();
        }
        let name = path.trim_start_matches("/v2/");
        let end = name.find("/manifests/").or(name.find("/blobs/"));
        let name = &name[..end.unwrap_or(name.len())];
        state.challenged.insert(name.to_owned());
        format!(
            "WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"the registry\",\
             scope=\"repository:{name}:pull,push\"\r\n",
            self.address
        )
    }
}

impl State {
    /// What `/token` answers, for a repository that was asked for, and reading only.
    fn token(&mut self, query: &str, authorization: Option<&str>) -> Option<Vec<u8>> {
        let plain = query.replace("%3A", ":").replace("%2F", "/");
        let scope = |name: &String| plain.contains(&format!("scope=repository:{name}:pull"));
        assert!(self.challenged.iter().any(scope), "{query}");
        assert!(!query.contains("push"), "{query}");
        assert!(query.contains("service=the"), "{query}");
        if self.door == Door::TokenOfAlice && authorization != Some(&alice()) {
            return None;
        }
        self.tokens += 1;
        let name = if self.tokens.is_multiple_of(2) {
            "access_token"
        } else {
            "token"
        };
        Some(format!("{{\"{name}\": \"secret-{}\"}}", self.tokens).into_bytes())
    }

    fn lets_in(&self, request: &Request) -> bool {
        let shown = request.authorization.as_deref().unwrap_or_default();
        match self.door {
            Door::Open => true,
            Door::Alice => shown == alice(),
            Door::Token | Door::TokenOfAlice => shown
                .strip_prefix("Bearer secret-")
                .and_then(|number| number.parse::<u32>().ok())
                .is_some_and(|number| number >= self.valid_from && number <= self.tokens),
        }
    }
}

/// What alice shows.
pub fn alice() -> String {
    format!("Basic {}", STANDARD.encode(format!("alice:{PASSWORD}")))
}

fn head(
    stream: &mut TcpStream,
    status: u16,
    more: &str,
    length: Option<usize>,
) -> std::io::Result<()> {
    let length = length.map_or(String::new(), |length| {
        format!("Content-Length: {length}\r\n")
    });
    write!(
        stream,
        "HTTP/1.1 {status} X\r\n{more}{length}Connection: close\r\n\r\n"
    )
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<Request> {
    let mut request = Request {
        path: String::new(),
        authorization: None,
        range: None,
    };
    loop {
        let mut line = String::new();
        if reader.take(16384).read_line(&mut line)? == 0 || line == "\r\n" {
            return Ok(request);
        }
        let line = line.trim();
        let header = line
            .split_once(": ")
            .map(|(key, value)| (key.to_ascii_lowercase(), value));
        match header {
            Some((key, value)) if key == "authorization" => {
                request.authorization = Some(value.to_owned());
            }
            Some((key, value)) if key == "range" => {
                let from = value
                    .strip_prefix("bytes=")
                    .and_then(|from| from.strip_suffix('-'));
                request.range = from.and_then(|from| from.parse().ok());
            }
            _ if request.path.is_empty() => {
                request.path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            }
            _ => {}
        }
    }
}
