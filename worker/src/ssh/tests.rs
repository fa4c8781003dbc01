//! The client against a server in the process, over real TCP on loopback.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use futures::future::join_all;
use russh::keys::{Algorithm, PrivateKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::host::OUTPUT_LIMIT;
use super::keys::fingerprint;
use super::scripted::{Scripted, fails, prints};
use super::server::{Server, new_key};
use super::*;
use crate::net::Dialer;

const LONG: Duration = Duration::from_secs(30);

async fn connect(target: &SshTarget) -> Result<Ssh, SshError> {
    Ssh::connect(&Dialer::direct(), target, LONG).await
}

async fn connected() -> (Server, Ssh) {
    let server = Server::start(vec![]).await;
    let ssh = connect(&server.target()).await.unwrap();
    (server, ssh)
}

#[tokio::test]
async fn a_pinned_key_is_accepted_whichever_of_the_pins_it_is() {
    let server = Server::start(vec![]).await;
    let mut target = server.target();
    target.host_keys.insert(0, new_key().public_key().clone());
    connect(&target).await.unwrap();
}

#[tokio::test]
async fn flaw_50_a_wrong_host_key_is_refused_and_both_fingerprints_are_named() {
    let server = Server::start(vec![]).await;
    let expected = new_key().public_key().clone();
    let target = SshTarget {
        host_keys: vec![expected.clone()],
        ..server.target()
    };
    let error = connect(&target).await.unwrap_err();
    assert!(
        error.is_host_key_mismatch() && !error.is_unreachable(),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.contains(&fingerprint(&expected)), "{text}");
    assert!(text.contains(&fingerprint(&server.host_key)), "{text}");
}

#[tokio::test]
async fn flaw_50_without_a_pinned_key_no_host_is_trusted() {
    let server = Server::start(vec![]).await;
    let target = SshTarget {
        host_keys: vec![],
        ..server.target()
    };
    let error = connect(&target).await.unwrap_err();
    assert!(error.is_host_key_mismatch(), "{error:?}");
    assert!(error.to_string().contains("none is pinned"), "{error}");
    let (_bastion, ssh) = connected().await;
    assert!(
        Ssh::connect_through(&ssh, &target, LONG)
            .await
            .unwrap_err()
            .is_host_key_mismatch()
    );
}

#[tokio::test]
async fn a_host_with_several_keys_shows_the_pinned_one() {
    let mut rng = russh::keys::key::safe_rng();
    let curve = russh::keys::EcdsaCurve::NistP256;
    let ecdsa = PrivateKey::random(&mut rng, Algorithm::Ecdsa { curve }).unwrap();
    let ed25519 = PrivateKey::clone(&new_key());
    let server = Server::start(vec![ed25519.clone(), ecdsa.clone()]).await;
    for pinned in [ed25519, ecdsa] {
        let target = SshTarget {
            host_keys: vec![pinned.public_key().clone()],
            ..server.target()
        };
        connect(&target).await.unwrap();
    }
}

#[tokio::test]
async fn an_unknown_user_key_is_an_auth_failure_and_not_an_unreachable_host() {
    let server = Server::start(vec![]).await;
    let target = SshTarget {
        key: new_key(),
        ..server.target()
    };
    let error = connect(&target).await.unwrap_err();
    assert!(
        error.is_auth_refused() && !error.is_unreachable(),
        "{error:?}"
    );
    assert!(
        error
            .to_string()
            .contains(&fingerprint(target.key.public_key())),
        "{error}"
    );
}

#[tokio::test]
async fn a_connection_that_breaks_in_the_login_is_not_an_auth_failure() {
    let server = Server::start(vec![]).await;
    let target = SshTarget {
        user: "cut-me".into(),
        ..server.target()
    };
    let error = connect(&target).await.unwrap_err();
    assert!(
        error.is_unreachable() && !error.is_auth_refused(),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_dead_port_a_silent_one_and_one_that_hangs_up_are_unreachable() {
    let server = Server::start(vec![]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = SshTarget {
        port: listener.local_addr().unwrap().port(),
        ..server.target()
    };

    let short = Duration::from_millis(30);
    let silent = Ssh::connect(&Dialer::direct(), &target, short)
        .await
        .unwrap_err();
    let hang_up = async {
        loop {
            listener.accept().await.unwrap();
        }
    };
    let hung_up = tokio::select! {
        result = connect(&target) => result.unwrap_err(),
        () = hang_up => unreachable!(),
    };
    assert!(matches!(hung_up, SshError::Handshake { .. }), "{hung_up:?}");

    drop(listener);
    let dead = connect(&target).await.unwrap_err();
    assert!(matches!(dead, SshError::Dial { .. }), "{dead:?}");
    assert!(silent.is_unreachable() && hung_up.is_unreachable() && dead.is_unreachable());
}

#[tokio::test]
async fn status_and_both_outputs_are_carried() {
    let (_server, ssh) = connected().await;
    let output = ssh
        .run(&["sh", "-c", "echo out; echo err >&2; exit 7"])
        .await
        .unwrap();
    assert_eq!(
        output,
        Output {
            status: 7,
            stdout: b"out\n".to_vec(),
            stderr: b"err\n".to_vec()
        }
    );
    let error = ssh
        .run_ok(&["sh", "-c", "echo 'no such disk' >&2; exit 7"])
        .await
        .unwrap_err();
    assert_eq!(error.status(), Some(7));
    assert!(error.is_command_failure());
    let host = ssh.name();
    assert_eq!(
        error.to_string(),
        format!("run `sh` on {host}: exit status 7: no such disk")
    );
}

#[tokio::test]
async fn words_arrive_as_they_are() {
    let (_server, ssh) = connected().await;
    let words = [
        "",
        "a b",
        "it's",
        "$(reboot)",
        "`x`",
        "a\nb",
        "~",
        "*",
        "\\",
        "\"",
        "-n",
    ];
    let argv: Vec<&str> = ["printf", "%s|"].into_iter().chain(words).collect();
    assert_eq!(
        ssh.run_ok(&argv).await.unwrap().text(),
        words.map(|word| format!("{word}|")).concat()
    );
}

#[tokio::test]
async fn a_word_that_no_shell_can_take_is_refused() {
    let (_server, ssh) = connected().await;
    for argv in [&["echo", "a\0b"][..], &[""], &[]] {
        let error = ssh.run(argv).await.unwrap_err();
        assert!(matches!(error, SshError::BadArgument { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn input_and_output_flow_at_the_same_time() {
    let (_server, ssh) = connected().await;
    let large: Vec<u8> = (0..6_000_000_u32).map(|n| (n % 251) as u8).collect();
    assert!(ssh.run_with_input(&["cat"], &large).await.unwrap().stdout == large);
}

#[tokio::test]
async fn a_command_that_does_not_read_its_input_is_no_error() {
    let (_server, ssh) = connected().await;
    let large = vec![0; 6_000_000];
    assert_eq!(
        ssh.run_with_input(&["echo", "done"], &large)
            .await
            .unwrap()
            .text(),
        "done\n"
    );
}

#[tokio::test]
async fn flaw_33_a_connection_cut_in_mid_command_is_an_error() {
    for argv in [["misbehave", "cut"], ["misbehave", "cut-after-status"]] {
        let (_server, ssh) = connected().await;
        let error = ssh.run(&argv).await.unwrap_err();
        assert!(matches!(error, SshError::Cut { .. }), "{error:?}");
        assert!(error.is_unreachable());
        // And so is every later command on that connection.
        assert!(ssh.run(&["true"]).await.unwrap_err().is_unreachable());
        assert!(ssh.is_closed());
    }
}

#[tokio::test]
async fn flaw_33_an_end_without_exit_status_is_never_success() {
    let (_server, ssh) = connected().await;
    let error = ssh.run(&["misbehave", "no-status"]).await.unwrap_err();
    assert!(matches!(error, SshError::NoStatus { .. }), "{error:?}");
    let error = ssh.run(&["misbehave", "signal"]).await.unwrap_err();
    assert!(
        matches!(&error, SshError::Killed { signal, .. } if signal == "KILL"),
        "{error:?}"
    );
    let error = ssh.run(&["misbehave", "refuse"]).await.unwrap_err();
    assert!(matches!(error, SshError::NotStarted { .. }), "{error:?}");
    // The connection has taken no harm.
    ssh.run_ok(&["true"]).await.unwrap();
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_given_up_and_the_connection_lives_on() {
    let (_server, ssh) = connected().await;
    let command = Command::new(&["sleep", "30"]).timeout(Duration::from_millis(20));
    let error = ssh.execute(&command).await.unwrap_err();
    assert!(
        matches!(error, SshError::CommandTimeout { .. }),
        "{error:?}"
    );
    assert!(error.is_command_failure() && !error.is_unreachable());
    ssh.run_ok(&["true"]).await.unwrap();
}

#[tokio::test]
async fn a_command_that_nobody_waits_for_any_more_is_killed() {
    let (server, ssh) = connected().await;
    let folder = Folder::new();
    let script = r#"touch "$1"; exec sleep 30"#;
    let argv = ["sh", "-c", script, "sh", &folder.path("started")].map(str::to_owned);
    let running = tokio::spawn({
        let ssh = ssh.clone();
        async move { ssh.run(&argv.each_ref().map(String::as_str)).await }
    });
    until("the command has started", || !folder.names().is_empty()).await;
    running.abort();
    until("it is killed", || {
        *server.signals.lock().unwrap() == ["KILL"]
    })
    .await;
    ssh.run_ok(&["true"]).await.unwrap();
}

/// Waits for a condition.
async fn until(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(LONG, holds).await.expect(what);
}

#[tokio::test]
async fn too_much_output_is_an_error_and_not_a_full_memory() {
    let (_server, ssh) = connected().await;
    let more = (OUTPUT_LIMIT + 1).to_string();
    let error = ssh
        .run(&["head", "-c", &more, "/dev/zero"])
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            SshError::TooMuchOutput {
                limit: OUTPUT_LIMIT,
                ..
            }
        ),
        "{error:?}"
    );
    ssh.run_ok(&["true"]).await.unwrap();
}

#[tokio::test]
async fn many_commands_share_one_connection() {
    let (_server, ssh) = connected().await;
    let runs = (0..30).map(|n: u32| {
        let ssh = ssh.clone();
        async move { ssh.run_ok(&["echo", &n.to_string()]).await.unwrap().text() }
    });
    let want: Vec<String> = (0..30).map(|n| format!("{n}\n")).collect();
    assert_eq!(join_all(runs).await, want);
}

#[tokio::test]
async fn a_host_is_reached_through_a_bastion_with_both_keys_checked() {
    let (bastion, through) = connected().await;
    let inner = Server::start(vec![]).await;
    let ssh = Ssh::connect_through(&through, &inner.target(), LONG)
        .await
        .unwrap();
    // The way in stays open although nobody else holds it.
    drop(through);
    assert_eq!(
        ssh.run_ok(&["echo", "inside"]).await.unwrap().text(),
        "inside\n"
    );

    let impostor = SshTarget {
        host_keys: vec![bastion.host_key.clone()],
        ..inner.target()
    };
    let through = connect(&bastion.target()).await.unwrap();
    assert!(
        Ssh::connect_through(&through, &impostor, LONG)
            .await
            .unwrap_err()
            .is_host_key_mismatch()
    );

    bastion.cut.cancel();
    assert!(ssh.run(&["true"]).await.unwrap_err().is_unreachable());
}

#[tokio::test]
async fn a_bastion_that_cannot_and_one_that_will_not_are_told_apart() {
    let (_bastion, through) = connected().await;
    let target = Server::start(vec![]).await.target();
    let dead = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let target_down = SshTarget {
        port: dead,
        ..target.clone()
    };
    let error = Ssh::connect_through(&through, &target_down, LONG)
        .await
        .unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    assert!(
        error.to_string().contains(&dead.to_string()) && error.to_string().contains(through.name()),
        "{error}"
    );
    let forbidden = SshTarget {
        host: "forbidden".into(),
        ..target
    };
    let error = Ssh::connect_through(&through, &forbidden, LONG)
        .await
        .unwrap_err();
    assert!(
        matches!(error, SshError::Forward { .. }) && !error.is_unreachable(),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_tunnel_carries_bytes() {
    let (_server, ssh) = connected().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = [0; 4];
        stream.read_exact(&mut text).await.unwrap();
        stream.write_all(&text).await.unwrap();
    });
    let mut tunnel = ssh.tunnel("127.0.0.1", port, LONG).await.unwrap();
    drop(ssh);
    tunnel.write_all(b"ping").await.unwrap();
    let mut text = [0; 4];
    tunnel.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"ping");
}

/// A folder that goes away with the test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("rekindle-ssh-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test]
async fn flaw_45_a_file_is_written_whole_with_its_mode() {
    use std::os::unix::fs::PermissionsExt;
    let (_server, ssh) = connected().await;
    let folder = Folder::new();
    let path = folder.path("it's $HOME.conf");
    for (content, mode) in [
        (&b""[..], 0o600),
        (b"one\n\0two", 0o644),
        (&[7; 3_000_000], 0o4755),
    ] {
        ssh.write_file(&path, content, mode).await.unwrap();
        assert!(std::fs::read(&path).unwrap() == content);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            mode
        );
    }
    assert_eq!(folder.names(), ["it's $HOME.conf"]);
}

#[tokio::test]
async fn a_file_that_cannot_be_written_leaves_the_old_one_and_no_rest() {
    let (_server, ssh) = connected().await;
    let folder = Folder::new();
    std::fs::create_dir(folder.path("folder")).unwrap();
    let error = ssh
        .write_file(&folder.path("folder"), b"x", 0o600)
        .await
        .unwrap_err();
    assert!(error.is_command_failure(), "{error:?}");
    assert!(error.to_string().contains("write /"), "{error}");
    assert_eq!(folder.names(), ["folder"]);
    assert!(
        ssh.write_file(&folder.path("nowhere/file"), b"x", 0o600)
            .await
            .is_err()
    );
    for path in ["relative", "/", "/tmp/"] {
        let error = ssh.write_file(path, b"x", 0o600).await.unwrap_err();
        assert!(matches!(error, SshError::BadArgument { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_file_that_reads_back_differently_is_an_error() {
    let host = Scripted::new(|command, _| match command.argv[2].contains("sha256sum") {
        true => prints("600\n0000  -\n"),
        false => prints(""),
    });
    let error = host.write_file("/etc/x", b"x", 0o600).await.unwrap_err();
    assert!(
        matches!(error, SshError::WrittenDifferently { .. }),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_write_that_fails_half_way_is_cleared_away() {
    let host = Scripted::new(|command, _| match command.argv[0].as_str() {
        "chmod" => fails(1, &"x".repeat(5000)),
        _ => prints(""),
    });
    let error = host
        .write_file("/etc/x", b"secret", 0o600)
        .await
        .unwrap_err();
    assert!(error.to_string().len() < 1200, "{error}");
    let lines = host.lines();
    assert!(
        lines[0].contains("umask 077"),
        "nobody else may read it before its mode is set"
    );
    assert!(
        lines.last().unwrap().starts_with("rm -f -- /etc/x."),
        "{lines:?}"
    );
    assert!(
        !lines.iter().any(|line| line.contains("secret")),
        "{lines:?}"
    );
    let shown = format!("{:?}", Command::new(&["tee"]).stdin("secret"));
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn a_target_shows_fingerprints_and_no_key() {
    let key = new_key();
    let target = SshTarget {
        host: "::1".into(),
        port: 2205,
        user: "root".into(),
        host_keys: vec![key.public_key().clone()],
        key: key.clone(),
    };
    let shown = format!("{target:?}");
    assert!(
        shown.contains("root@[::1]:2205") && shown.contains(&fingerprint(key.public_key())),
        "{shown}"
    );
    assert!(!shown.contains("Ed25519"), "{shown}");
}
