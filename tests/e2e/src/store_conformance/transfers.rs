//! Large objects over lines that break, stall, and are slow.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use jobs::store::StoreError;
use sandbox::s3::{Gate, Op, What, When};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use super::{at, unique};
use crate::store_lab::StoreLab;

const MB: usize = 1_000_000;

/// The file that came is the file that went, however often the line broke.
pub async fn a_broken_transfer_goes_on(lab: &StoreLab) -> anyhow::Result<()> {
    let store = lab.store_within(Duration::from_millis(500)).await?;
    let folder = TempDir::new()?;
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    write(&there, 4 * MB).await?;
    for (n, (times, what)) in [
        (2, What::CutRequest(MB as u64)),
        (1, What::StallRequest(MB as u64)),
        (2, What::LoseAnswer),
        (2, What::LoseRequest),
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("up/{n}");
        lab.faults().add(at(&key, When::Next(times), what.clone()));
        let up = store.put_file(&key, &there).await;
        up.with_context(|| format!("{what:?}"))?;
        let size = store.get_file(&key, &back).await?;
        ensure!(size == Some(4 * MB as u64), "{what:?}: {size:?}");
        ensure!(same(&there, &back).await?, "{what:?}");
    }
    for what in [What::CutAnswer(MB as u64), What::StallAnswer(MB as u64)] {
        lab.faults().clear();
        lab.faults().add(at("up/0", When::Next(2), what.clone()));
        let before = lab.proxy().stats();
        let size = store.get_file("up/0", &back).await;
        let size = size.with_context(|| format!("{what:?}"))?;
        ensure!(size == Some(4 * MB as u64), "{what:?}: {size:?}");
        ensure!(same(&there, &back).await?, "{what:?}");
        let asked = lab.proxy().stats().get - before.get;
        ensure!(asked == 3, "{what:?}: {asked} requests");
        let sent = lab.proxy().stats().bytes_out - before.bytes_out;
        ensure!(sent < 10 * MB as u64, "{what:?}: it goes on, {sent} bytes");
    }
    Ok(())
}

/// A blob is there once and whole, whoever made it and whichever answer was lost; and its length is told.
pub async fn a_blob_is_created_once_over_lines_that_break(lab: &StoreLab) -> anyhow::Result<()> {
    let store = lab.store_within(Duration::from_millis(500)).await?;
    let folder = TempDir::new()?;
    let (first, other) = (folder.path().join("first"), folder.path().join("other"));
    write(&first, 2 * MB).await?;
    write(&other, 7).await?;
    let (file, another) = (std::fs::File::open(&first)?, std::fs::File::open(&other)?);
    for (n, what) in [
        What::CutRequest(MB as u64),
        What::LoseAnswer,
        What::LoseRequest,
    ]
    .into_iter()
    .enumerate()
    {
        let key = format!("blob/{n}");
        lab.faults().add(at(&key, When::Next(1), what.clone()));
        let made = store.create_from(&key, &file).await;
        made.with_context(|| format!("{what:?}"))?;
        let again = store.create_from(&key, &another).await?;
        ensure!(!again, "{what:?}: it was there");
        let back = folder.path().join("back");
        store.get_file(&key, &back).await?;
        ensure!(same(&first, &back).await?, "{what:?}");
        ensure!(store.size(&key).await? == Some(2 * MB as u64), "{what:?}");
    }
    ensure!(store.size("blob/9").await?.is_none(), "there is none");
    ensure!(
        store.size("blob/").await?.is_none(),
        "what is below is another one"
    );
    let sizes = store.sizes("blob/").await?;
    ensure!(sizes.len() == 3, "{sizes:?}");
    Ok(())
}

/// A request may take longer than the store waits for an answer, as long as something moves.
pub async fn a_slow_line_is_waited_for(lab: &StoreLab) -> anyhow::Result<()> {
    let store = lab.store_within(Duration::from_millis(700)).await?;
    let folder = TempDir::new()?;
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    // Both ways take more than a second, and the buffers of the line are the smaller part.
    write(&there, 8 * MB).await?;
    lab.faults()
        .add(at("slow", When::Always, What::Throttle(4 * MB as u64)));
    store.put_file("slow", &there).await?;
    store.get_file("slow", &back).await?;
    ensure!(same(&there, &back).await?);
    let whole = store.get("slow").await?.context("it is there")?;
    ensure!(whole.len() == 8 * MB);
    store.put("slow", whole).await?;
    ensure!(lab.proxy().stats().put == 2, "no try was given up");
    Ok(())
}

/// The rest of another object must never be written behind the beginning of this one.
pub async fn an_object_replaced_on_the_way_is_never_a_mixture(
    lab: &StoreLab,
) -> anyhow::Result<()> {
    let (store, direct) = (lab.store().await?, lab.direct().await?);
    let folder = TempDir::new()?;
    let file = folder.path().join("file");
    tokio::fs::write(&file, "what was there before").await?;
    direct.put("key", Bytes::from(vec![b'a'; MB])).await?;
    let gate = Gate::new();
    let faults = lab.faults();
    // The first added rule acts, and both count: the first request is cut, the second one held.
    faults.on(Op::Get, When::Nth(1), What::CutAnswer(MB as u64 / 2));
    faults.on(Op::Get, When::Nth(2), What::HoldRequest(gate.clone()));
    let replace = async {
        gate.reached(1).await;
        direct.put("key", Bytes::from(vec![b'b'; MB])).await?;
        gate.open();
        anyhow::Ok(())
    };
    let (got, replaced) = tokio::join!(store.get_file("key", &file), replace);
    replaced?;
    ensure!(matches!(got, Err(StoreError::Changed { .. })), "{got:?}");
    let kept = tokio::fs::read(&file).await?;
    ensure!(kept == b"what was there before", "the file is untouched");
    store.get_file("key", &file).await?;
    ensure!(tokio::fs::read(&file).await? == vec![b'b'; MB]);
    Ok(())
}

/// The store is not blamed for our own disk.
pub async fn a_file_that_cannot_be_read_or_written_is_told_apart(
    lab: &StoreLab,
) -> anyhow::Result<()> {
    let store = lab.store().await?;
    let folder = TempDir::new()?;
    let absent = folder.path().join("absent/file");
    store.put("key", unique()).await?;
    let up = store.put_file("up", &absent).await;
    ensure!(matches!(up, Err(StoreError::Local { .. })), "{up:?}");
    let down = store.get_file("key", &absent).await;
    ensure!(matches!(down, Err(StoreError::Local { .. })), "{down:?}");
    // A full disk, as /dev/full plays it.
    let mut full = tokio::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .await?;
    let down = store.get_into("key", &mut full).await;
    ensure!(matches!(down, Err(StoreError::Local { .. })), "{down:?}");
    let file = folder.path().join("file");
    ensure!(store.get_file("nothing", &file).await?.is_none());
    ensure!(!file.exists());
    Ok(())
}

/// A rootfs image or a bundle of container images.
pub async fn heavy_200_mb_go_up_and_come_down_whole_in_bounded_memory(
    lab: &StoreLab,
) -> anyhow::Result<()> {
    let store = lab.store().await?;
    let folder = TempDir::new()?;
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    write(&there, 200 * MB).await?;
    let before = peak()?;
    lab.faults()
        .on(Op::Put, When::Nth(1), What::CutRequest(50 * MB as u64));
    store.put_file("large", &there).await?;
    lab.faults()
        .on(Op::Get, When::Nth(1), What::CutAnswer(120 * MB as u64));
    let size = store.get_file("large", &back).await?;
    let grown = peak()? - before;
    ensure!(size == Some(200 * MB as u64), "{size:?}");
    ensure!(same(&there, &back).await?);
    ensure!(lab.faults().fired() == 2, "both ways were cut");
    ensure!(grown < 100_000, "memory grew by {grown} KiB");
    // The server may keep it in its memory and serve other tests too.
    store.put("large", Bytes::new()).await?;
    Ok(())
}

/// Writes bytes that no two places have alike.
async fn write(path: &Path, size: usize) -> anyhow::Result<()> {
    let mut file = tokio::io::BufWriter::new(tokio::fs::File::create(path).await?);
    let mut written = 0;
    while written < size {
        let line = format!("{written:015}\n");
        let piece = &line.as_bytes()[..line.len().min(size - written)];
        file.write_all(piece).await?;
        written += piece.len();
    }
    file.flush().await?;
    Ok(())
}

async fn same(one: &Path, other: &Path) -> anyhow::Result<bool> {
    let status = tokio::process::Command::new("cmp")
        .arg("--silent")
        .args([one, other])
        .status();
    Ok(status.await?.success())
}

/// The most memory this process ever had, in KiB.
fn peak() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("Linux tells the peak")?.parse()?)
}
