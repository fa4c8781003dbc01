//! Requests a second of the load test's driver `local`, against a server on the loopback that says hello.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use tokio::net::TcpListener;
use worker::application::{Target, Way};
use worker::load::users::{Load, Plan};
use worker::world::World;

use crate::figures::Figures;

/// Virtual users, each with a connection that it keeps.
const USERS: u32 = 64;

pub(crate) async fn run(
    rounds: u32,
    requests: u32,
    url: Option<&str>,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let url = match url {
        Some(url) => url.to_owned(),
        None => format!("http://{}/", hello().await?),
    };
    for _ in 0..rounds {
        once(&url, requests, figures).await?;
    }
    Ok(())
}

async fn once(url: &str, requests: u32, figures: &mut Figures) -> anyhow::Result<()> {
    let target = Target::new(url, None).map_err(anyhow::Error::msg)?;
    let plan = Plan {
        users: USERS,
        iterations: requests.div_ceil(USERS),
        at_most: Duration::from_secs(300),
        answer: Duration::from_secs(30),
    };
    let mut load = Load::start(Way::new(&World::default(), None, &target)?, plan)?;
    load.ended().await;
    let (tally, lasted) = load.counted().await;
    let summary = tally.summary(plan.requests(), lasted);
    ensure!(
        summary.failed == 0 && summary.dropped == 0,
        "not all of it was done: {summary:?}, {:?}",
        tally.failures()
    );
    let rate = summary.rate().context("it took no time")?;
    let at = format!("{USERS} virtual users, driver local");
    figures.add(&format!("requests a second: {at}"), "", rate);
    let tail = format!("time of a request, p95: {at}");
    figures.add(&tail, "ms", summary.latency.p95);
    Ok(())
}

/// Serves until the process ends; where.
async fn hello() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.context("listen on the loopback")?;
    let address = listener.local_addr()?;
    let router = Router::new().fallback(async || "hello\n");
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address)
}

/// Says hello until it is ended, for programs that are compared.
pub(crate) async fn serve() -> anyhow::Result<()> {
    let address = hello().await?;
    sandbox::say::line(&format!("http://{address}/"));
    std::future::pending().await
}
