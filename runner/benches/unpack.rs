//! Unpacking, against what others do with the same archive, and the tail behind a download.
//!
//!     cargo bench -p runner -- [--entries N] [--rounds N] [--disk DIR] [--no-disk]
//!
//! The archive is made up, the same each time, with the shape of an image with Ansible: 7,000
//! directories and 51,000 files of 14 KB on average that compress about 4.5 times. The methods take turns, so that a
//! noisy machine is noisy for all of them; read the minimum and the median.
#![allow(missing_docs, reason = "a benchmark has no interface")]
#![expect(clippy::print_stdout, reason = "figures are printed")]
#![expect(clippy::unwrap_used, reason = "a benchmark may panic")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use runner::Digest;
use runner::image::{self, Network, Options, Source, Store};
use runner::unpack::{Limits, unpack};

fn main() {
    let mut args = std::env::args().skip(1);
    let (mut entries, mut rounds, mut disk) = (51_000, 7, PathBuf::from("/var/tmp"));
    let mut use_disk = true;
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--entries" => entries = args.next().unwrap().parse().unwrap(),
            "--rounds" => rounds = args.next().unwrap().parse().unwrap(),
            "--disk" => disk = args.next().unwrap().into(),
            "--no-disk" => use_disk = false,
            // cargo passes it.
            "--bench" => {}
            other => panic!("unknown argument {other}"),
        }
    }
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let disk = tempfile::tempdir_in(disk).unwrap();
    let tar = memory.path().join("image.tar");
    let zst = memory.path().join("image.tar.zst");
    make_archive(&tar, entries);
    let options = Options {
        level: 3,
        latest: None,
        limits: Limits::default(),
    };
    let built = image::build(&tar, &zst, &options).unwrap();
    println!(
        "{} entries, {} MB tar, {} MB zst",
        built.entries,
        fs::metadata(&tar).unwrap().len() / 1_000_000,
        built.compressed_bytes / 1_000_000
    );
    compare("tmpfs", memory.path(), &tar, &zst, rounds);
    for rate in [50, 110, 300] {
        tail(
            "tmpfs",
            memory.path(),
            &zst,
            built.digest,
            rate,
            rounds.min(5),
        );
    }
    if !use_disk {
        return;
    }
    compare("disk", disk.path(), &tar, &zst, rounds.min(3));
    for rate in [50, 110] {
        tail("disk", disk.path(), &zst, built.digest, rate, rounds.min(3));
    }
}

/// Takes turns, and prints seconds.
fn compare(place: &str, folder: &Path, tar: &Path, zst: &Path, rounds: usize) {
    type Method<'a> = (&'a str, Box<dyn Fn(&Path) + 'a>);
    let methods: [Method<'_>; 5] = [
        ("runner .tar.zst", Box::new(|to| ours(zst, to))),
        ("zstd -dc | tar x", Box::new(|to| gnu_zstd(zst, to))),
        ("tar x of .tar", Box::new(|to| gnu(tar, to))),
        ("tar crate + zstd", Box::new(|to| tar_crate(zst, to))),
        (
            "cp of .tar",
            Box::new(|to| assert!(fs::copy(tar, to.join("copy")).unwrap() > 0)),
        ),
    ];
    let mut seconds = vec![Vec::new(); methods.len()];
    let mut cpu = vec![Vec::new(); methods.len()];
    for round in 0..rounds {
        for (at, (_, method)) in methods.iter().enumerate() {
            let to = folder.join(format!("{round}-{at}"));
            fs::create_dir(&to).unwrap();
            let (start, before) = (Instant::now(), cpu_seconds());
            method(&to);
            seconds[at].push(start.elapsed().as_secs_f64());
            cpu[at].push(cpu_seconds() - before);
            // Not on a disk: making files right after removing many is slow there.
            if place == "tmpfs" {
                fs::remove_dir_all(&to).unwrap();
            }
        }
    }
    let ours = median(&mut seconds[0].clone());
    for (at, (name, _)) in methods.iter().enumerate() {
        let (all, cpu) = (&mut seconds[at], &mut cpu[at]);
        let (median, cpu_median) = (median(all), self::median(cpu));
        println!(
            "{place:6} {name:18} min {:.2} s, median {median:.2} s, processor min {:.2} s, median \
             {cpu_median:.2} s; runner / this {:.2}",
            all[0],
            cpu[0],
            ours / median
        );
    }
}

/// Processor time of this process and of those that it waited for: what a busy machine does not
/// stretch much.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
    let ticks: u64 = fields
        .skip(11)
        .take(4)
        .map(|ticks| ticks.parse::<u64>().unwrap())
        .sum();
    ticks as f64 / 100.0
}

fn median(all: &mut [f64]) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn ours(zst: &Path, to: &Path) {
    unpack(File::open(zst).unwrap(), to, &Limits::default()).unwrap();
}

fn gnu_zstd(zst: &Path, to: &Path) {
    let mut zstd = Command::new("zstd")
        .arg("-dcq")
        .arg(zst)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let tar = Command::new("tar")
        .args(["-x", "-C"])
        .arg(to)
        .stdin(zstd.stdout.take().unwrap())
        .status();
    assert!(tar.unwrap().success() && zstd.wait().unwrap().success());
}

fn gnu(tar: &Path, to: &Path) {
    let tar = Command::new("tar")
        .arg("-xf")
        .arg(tar)
        .arg("-C")
        .arg(to)
        .status();
    assert!(tar.unwrap().success());
}

fn tar_crate(zst: &Path, to: &Path) {
    let decoder = zstd::stream::read::Decoder::new(File::open(zst).unwrap()).unwrap();
    let mut archive = tar::Archive::new(decoder);
    archive.set_preserve_permissions(true);
    archive.unpack(to).unwrap();
}

/// Pulls from a server that sends so many MB/s, and prints what passes after its last byte.
fn tail(place: &str, folder: &Path, zst: &Path, digest: Digest, rate: u64, rounds: usize) {
    let mut tails = Vec::new();
    for round in 0..rounds {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url: Source = format!("http://{}/image", listener.local_addr().unwrap())
            .parse()
            .unwrap();
        let (sent, last) = channel();
        let file = zst.to_owned();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while !lines.next().unwrap().unwrap().is_empty() {}
            let bytes = fs::read(file).unwrap();
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                bytes.len()
            )
            .unwrap();
            let start = Instant::now();
            for (at, chunk) in bytes.chunks(65_536).enumerate() {
                let due = Duration::from_secs_f64(at as f64 * 65_536.0 / (rate as f64 * 1e6));
                thread::sleep(due.saturating_sub(start.elapsed()));
                stream.write_all(chunk).unwrap();
            }
            sent.send(Instant::now()).unwrap();
        });
        let to = folder.join(format!("store-{rate}-{round}"));
        let store = Store::open(&to).unwrap();
        let network = Network {
            tries: 1,
            ca_file: None,
            auth_file: None,
        };
        image::pull(&store, &url, &digest, &Limits::default(), &network).unwrap();
        let end = Instant::now();
        server.join().unwrap();
        tails.push((end - last.recv().unwrap()).as_secs_f64() * 1000.0);
        if place == "tmpfs" {
            fs::remove_dir_all(&to).unwrap();
        }
    }
    let median = median(&mut tails);
    println!(
        "{place:6} tail after the last byte at {rate} MB/s: min {:.0} ms, median {median:.0} ms",
        tails[0]
    );
}

/// An archive of made-up files. Small numbers from one generator decide everything.
fn make_archive(path: &Path, files: u64) {
    let mut random = Random(42);
    let words: Vec<Vec<u8>> = (0..4096)
        .map(|_| {
            let length = 3 + random.below(9) as usize;
            (0..length).map(|_| b'a' + random.below(26) as u8).collect()
        })
        .collect();
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut contents = Vec::new();
    let mut folder = String::new();
    for number in 0..files {
        if number % 7 == 0 {
            let above = format!("collections/{:03}", number / 700);
            if number % 700 == 0 {
                put(&mut out, &above, b'5', &[]);
            }
            folder = format!("{above}/plugins-{:05}", number / 7);
            put(&mut out, &folder, b'5', &[]);
        }
        contents.clear();
        // Most files are small, some are large: 14 KB on average.
        let size = match random.below(100) {
            0..50 => random.below(4_000),
            50..90 => random.below(20_000),
            90..99 => random.below(80_000),
            _ => random.below(1_000_000),
        };
        while (contents.len() as u64) < size {
            // Few words are frequent, as in programs.
            let bound = 1 << (6 + random.below(7));
            contents.extend_from_slice(&words[random.below(bound) as usize]);
            contents.push(b" \n.(_"[random.below(5) as usize]);
            if random.below(16) == 0 && contents.len() > 400 {
                let from = random.below(contents.len() as u64 - 300) as usize;
                contents.extend_from_within(from..from + 60 + random.below(240) as usize);
            }
        }
        put(
            &mut out,
            &format!("{folder}/file-{number:05}.py"),
            b'0',
            &contents,
        );
    }
    out.write_all(&[0; 1024]).unwrap();
    out.flush().unwrap();
}

fn put(out: &mut impl Write, name: &str, kind: u8, contents: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
    header.set_size(contents.len() as u64);
    header.set_mtime(1_700_000_000);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    out.write_all(header.as_bytes()).unwrap();
    out.write_all(contents).unwrap();
    let padding = contents.len().next_multiple_of(512) - contents.len();
    std::io::copy(&mut std::io::repeat(0).take(padding as u64), out).unwrap();
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
