//! The small Kubernetes API of the sandbox beside the real one: both are asked the same, and both must
//! say what stands in `transcript.txt`, which the real one said. `REKINDLE_TRANSCRIPT=write` lets the
//! real one write it anew.

#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod fields;
mod goodbye;
mod objects;
mod ours;
mod suite;

use std::path::Path;

use sandbox::kube_api::KubeApi;
use sandbox::kube_sim::KubeSim;

fn transcript() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kube_sim/transcript.txt")
}

/// Each step is a paragraph.
fn text(said: &[String]) -> String {
    format!("{}\n", said.join("\n\n"))
}

fn compare(said: &[String]) {
    let expected = std::fs::read_to_string(transcript()).unwrap();
    let steps: Vec<&str> = expected.trim_end().split("\n\n").collect();
    let different: Vec<String> = steps
        .iter()
        .zip(said)
        .filter(|(a, b)| *a != b)
        .map(|(a, b)| format!("it should say:\n{a}\nand says:\n{b}\n"))
        .collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert_eq!(steps.len(), said.len());
}

#[tokio::test]
async fn the_small_api_says_what_the_real_one_said() {
    worker::install_crypto();
    let api = KubeSim::start().await.unwrap();
    compare(&suite::play(&api.server(), api.pki()).await);
}

#[tokio::test]
async fn heavy_the_real_api_still_says_it() {
    worker::install_crypto();
    let api = KubeApi::start().await.unwrap();
    let said = suite::play(&api.server(), api.pki()).await;
    if std::env::var("REKINDLE_TRANSCRIPT").is_ok_and(|how| how == "write") {
        std::fs::write(transcript(), text(&said)).unwrap();
    }
    compare(&said);
    api.stop().await.unwrap();
}
