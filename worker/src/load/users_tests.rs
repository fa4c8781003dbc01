//! Virtual users against a server on the loopback that can misbehave.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;
use std::sync::atomic::AtomicUsize;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::application::Target;
use crate::world::World;

/// What a server does with each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Answers with 200 and five bytes.
    Answers,
    /// Answers so, and hangs up without having said so.
    HangsUp,
    /// Answers so, and says that it hangs up.
    Closes,
    /// Hangs up in the middle of the answer.
    Breaks,
    /// Says nothing.
    Stays,
    /// Answers with 503.
    Refuses,
}

struct Server {
    port: u16,
    seen: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Connections ever made, those that are open, and those there were when the first request came.
    made: AtomicUsize,
    open: AtomicUsize,
    at_first: OnceLock<usize>,
    requests: AtomicUsize,
    head: OnceLock<String>,
}

fn count(of: &AtomicUsize) -> usize {
    of.load(Ordering::SeqCst)
}

async fn server(does: Does) -> Server {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::<Counts>::default();
    let counts = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counts.made.fetch_add(1, Ordering::SeqCst);
            counts.open.fetch_add(1, Ordering::SeqCst);
            let counts = Arc::clone(&counts);
            tokio::spawn(async move {
                // Who hangs up is gone.
                serve(stream, does, &counts).await.ok();
                counts.open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    Server { port, seen }
}

async fn serve(mut stream: TcpStream, does: Does, counts: &Counts) -> std::io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        counts.at_first.get_or_init(|| count(&counts.made));
        counts.requests.fetch_add(1, Ordering::SeqCst);
        let head = String::from_utf8(head).unwrap();
        counts.head.get_or_init(|| head);
        let answer: &[u8] = match does {
            Does::Answers | Does::HangsUp => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            Does::Closes => {
                b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello"
            }
            Does::Breaks => b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhe",
            Does::Stays => b"",
            Does::Refuses => b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n",
        };
        stream.write_all(answer).await?;
        if [Does::HangsUp, Does::Closes, Does::Breaks].contains(&does) {
            return Ok(());
        }
    }
}

fn plan(users: u32, iterations: u32) -> Plan {
    Plan {
        users,
        iterations,
        at_most: Duration::from_secs(60),
        answer: Duration::from_secs(20),
    }
}

fn load(server: &Server, plan: Plan) -> Load {
    let url = format!("http://127.0.0.1:{}/a?b=c", server.port);
    let target = Target::new(&url, None).unwrap();
    Load::start(Way::new(&World::default(), None, &target).unwrap(), plan).unwrap()
}

async fn counted(mut load: Load) -> Tally {
    load.ended().await;
    load.counted().await.0
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 20 s: {what}");
}

#[tokio::test]
async fn each_user_keeps_one_connection_and_asks_as_often_as_told() {
    let server = server(Does::Answers).await;
    let load = load(&server, plan(150, 4));
    assert_eq!(load.progress(), Progress::Connecting(0, 150));
    let tally = counted(load).await;
    assert_eq!((tally.requests(), tally.failed()), (600, 0));
    assert_eq!(count(&server.seen.requests), 600);
    assert_eq!(count(&server.seen.made), 150);
    assert_eq!(tally.summary(600, Duration::from_secs(1)).received, 3000);
    let head = server.seen.head.get().unwrap();
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains(&format!("host: 127.0.0.1:{}\r\n", server.port)),
        "{head}"
    );
}

#[tokio::test]
async fn nobody_asks_before_all_are_connected() {
    let server = server(Does::Answers).await;
    counted(load(&server, plan(3 * AT_A_TIME as u32, 1))).await;
    assert_eq!(server.seen.at_first.get(), Some(&(3 * AT_A_TIME)));
}

#[tokio::test]
async fn a_server_that_hangs_up_between_requests_is_no_failure() {
    for does in [Does::HangsUp, Does::Closes] {
        let server = server(does).await;
        let tally = counted(load(&server, plan(8, 10))).await;
        assert_eq!(tally.requests(), 80, "{does:?}");
        // Who hangs up without a word may do so while a request is on its way. Then that one is lost.
        let lost = usize::try_from(tally.failed()).unwrap();
        assert_eq!(count(&server.seen.requests) + lost, 80, "{does:?}");
        assert!(does == Does::HangsUp || lost == 0, "{:?}", tally.failures());
        assert!(count(&server.seen.made) >= 80 - lost, "{does:?}");
    }
}

#[tokio::test]
async fn what_is_no_good_answer_is_counted_by_its_kind_and_the_user_goes_on() {
    for (does, kind) in [
        (Does::Breaks, "end of file"),
        (Does::Refuses, "status 503 instead of 200"),
        (Does::Stays, "no answer within 100ms"),
    ] {
        let server = server(does).await;
        let mut plan = plan(4, 3);
        if does == Does::Stays {
            plan.answer = Duration::from_millis(100);
        }
        let tally = counted(load(&server, plan)).await;
        assert_eq!((tally.requests(), tally.failed()), (12, 12), "{does:?}");
        let failures = tally.failures();
        assert!(
            failures.keys().all(|why| why.contains(kind)),
            "{failures:?}"
        );
        // The answer that came too late must not be taken for the next one.
        let connections = if does == Does::Refuses { 4 } else { 12 };
        assert_eq!(count(&server.seen.made), connections, "{does:?}");
    }
}

#[tokio::test]
async fn where_nobody_listens_every_request_fails() {
    let server = Server {
        port: 1,
        seen: Arc::default(),
    };
    let tally = counted(load(&server, plan(5, 2))).await;
    assert_eq!((tally.requests(), tally.failed()), (10, 10));
    let failures = tally.failures();
    assert!(
        failures.keys().all(|why| why.contains("refused")),
        "{failures:?}"
    );
}

#[tokio::test]
async fn what_is_not_done_in_time_is_given_up_and_counted() {
    let server = server(Does::Stays).await;
    let mut plan = plan(6, 2);
    plan.at_most = Duration::from_millis(300);
    let mut load = load(&server, plan);
    load.ended().await;
    let (tally, lasted) = load.counted().await;
    assert!(lasted <= Duration::from_secs(20), "{lasted:?}");
    let summary = tally.summary(plan.requests(), lasted);
    assert_eq!((summary.iterations, summary.dropped), (0, 12));
    until("all hung up", || count(&server.seen.open) == 0).await;
}

#[tokio::test]
async fn who_drops_the_load_ends_it() {
    let server = server(Does::Stays).await;
    let load = load(&server, plan(20, 5));
    until("all ask", || count(&server.seen.requests) == 20).await;
    assert_eq!(load.progress(), Progress::Asking(0, 100, 0));
    drop(load);
    until("all hung up", || count(&server.seen.open) == 0).await;
    assert_eq!(count(&server.seen.requests), 20);
}
