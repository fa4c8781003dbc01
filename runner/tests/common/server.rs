//! A small HTTP server that misbehaves on request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

/// What the server does with one request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Heeds ranges, as S3 does.
    Ranged,
    /// Heeds ranges, but breaks the connection after so many bytes of the body.
    Cut(usize),
    /// Heeds ranges, but is silent after so many bytes until the server is released.
    Stall(usize),
    /// Sends everything, whatever range was asked for.
    Whole,
    /// The same, but breaks the connection after so many bytes of the body.
    WholeCut(usize),
    /// Heeds ranges, but does not say how long the object is when asked for what is behind its end.
    Curt,
    /// Another object, with another tag.
    Other(Vec<u8>),
    /// No body.
    Status(u16),
}

#[derive(Debug, Default)]
struct State {
    answers: Vec<Answer>,
    ranges: Vec<Option<u64>>,
    released: bool,
}

#[derive(Debug)]
pub struct Server {
    pub url: String,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Server {
    /// Serves an object. Each request takes the next answer; the last one stays.
    pub fn start(object: &[u8], answers: &[Answer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new((
            Mutex::new(State {
                answers: answers.to_vec(),
                ..State::default()
            }),
            Condvar::new(),
        ));
        let object: Arc<[u8]> = object.into();
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (object, state) = (Arc::clone(&object), Arc::clone(&shared));
                // A client that goes away is part of the tests.
                thread::spawn(move || drop(serve(stream.unwrap(), &object, &state)));
            }
        });
        Self {
            url: format!("http://{address}/bucket/image.tar.zst?X-Amz-Signature=hunter2"),
            state,
        }
    }

    /// Where each request so far wanted to begin.
    pub fn ranges(&self) -> Vec<Option<u64>> {
        self.state.0.lock().unwrap().ranges.clone()
    }

    /// Lets stalled answers go on.
    pub fn release(&self) {
        self.state.0.lock().unwrap().released = true;
        self.state.1.notify_all();
    }
}

fn serve(stream: TcpStream, object: &[u8], state: &(Mutex<State>, Condvar)) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    respond(&mut reader, stream, object, state)
}

fn respond(
    reader: &mut impl BufRead,
    mut stream: impl Write,
    object: &[u8],
    state: &(Mutex<State>, Condvar),
) -> std::io::Result<()> {
    let range = read_request(reader)?;
    let answer = {
        let mut state = state.0.lock().unwrap();
        state.ranges.push(range);
        if state.answers.len() > 1 {
            state.answers.remove(0)
        } else {
            state.answers[0].clone()
        }
    };
    let (body, tag) = match &answer {
        Answer::Other(other) => (&other[..], "other"),
        _ => (object, "first"),
    };
    let from = match (&answer, range) {
        (Answer::Whole | Answer::WholeCut(_), _) | (_, None) => None,
        (_, Some(from)) => Some(usize::try_from(from).unwrap()),
    };
    let total = body.len();
    if let Answer::Status(status) = answer {
        return write!(
            stream,
            "HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    if from.is_some_and(|from| from >= total) {
        let range = match answer {
            Answer::Curt => String::new(),
            _ => format!("Content-Range: bytes */{total}\r\n"),
        };
        return write!(
            stream,
            "HTTP/1.1 416 X\r\n{range}Content-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let rest = &body[from.unwrap_or(0)..];
    let (status, range) = match from {
        None => (200, String::new()),
        Some(from) => (
            206,
            format!("Content-Range: bytes {from}-{}/{total}\r\n", total - 1),
        ),
    };
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nETag: \"{tag}\"\r\n{range}Content-Length: {}\r\nConnection: close\r\n\r\n",
        rest.len()
    )?;
    match answer {
        Answer::Cut(after) | Answer::WholeCut(after) => {
            stream.write_all(&rest[..after.min(rest.len())])?
        }
        Answer::Stall(after) => {
            let after = after.min(rest.len());
            stream.write_all(&rest[..after])?;
            stream.flush()?;
            let mut locked = state.0.lock().unwrap();
            while !locked.released {
                locked = state.1.wait(locked).unwrap();
            }
            drop(locked);
            stream.write_all(&rest[after..])?;
        }
        _ => stream.write_all(rest)?,
    }
    stream.flush()
}

/// Reads the headers; gives the beginning of the range.
fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<u64>> {
    let mut range = None;
    loop {
        let mut line = String::new();
        if reader.take(8192).read_line(&mut line)? == 0 || line == "\r\n" {
            return Ok(range);
        }
        let line = line.trim().to_ascii_lowercase();
        if let Some(from) = line.strip_prefix("range: bytes=") {
            range = from.strip_suffix('-').and_then(|from| from.parse().ok());
        }
    }
}

/// Serves an object by https, with a certificate for 127.0.0.1 that nobody but its file vouches for.
pub fn start_tls(object: &[u8], folder: &std::path::Path) -> String {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    // The system's settings would make it a certificate authority, which is no server.
    let settings = "[req]\ndistinguished_name=n\nx509_extensions=x\n[n]\n\
        [x]\nsubjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n";
    std::fs::write(folder.join("openssl.cnf"), settings).unwrap();
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args(["-subj", "/CN=test", "-config", "openssl.cnf", "-days", "2"])
        .args(["-keyout", "key.pem", "-out", "ca.pem"])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", super::text(&made));
    let certificate = CertificateDer::from_pem_file(folder.join("ca.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/image", listener.local_addr().unwrap());
    let object = object.to_vec();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte) {
                    Ok(1) => request.push(byte[0]),
                    // A client that does not trust us goes away.
                    _ => break,
                }
            }
            let length = object.len();
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            let _ = stream.write_all(&object);
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    url
}
