//! The writers: threads that make files. Everything else of the tree is made by one thread (`tree`).

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, write};

use super::block::Slice;
use super::dir::Dir;
use super::entry::Attributes;
use super::error::UnpackError;
use super::name::Name;

/// How many batches may wait for a writer.
const WAITING: usize = 8;

/// Who we are, and what that means for new files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Maker {
    /// The owner that new files have by themselves; `None` when we may not give files away.
    pub(crate) owner: Option<(u32, u32)>,
    /// Mode bits that the kernel takes from new files.
    pub(crate) umask: u32,
}

impl Maker {
    /// The owner that must be set, if any.
    pub(crate) fn chown(&self, attributes: &Attributes) -> Option<(Option<Uid>, Option<Gid>)> {
        let own = self.owner?;
        let wanted = (attributes.uid, attributes.gid);
        (own != wanted).then(|| (Some(wanted.0.into()), Some(wanted.1.into())))
    }
}

/// One order for a writer. A file is `Create`, any number of `Data`, and `End`.
#[derive(Debug)]
enum Order {
    Create {
        dir: Arc<Dir>,
        name: Name,
        attributes: Attributes,
    },
    Data(Slice),
    End,
    /// Answer when everything before is done.
    Settle(Sender<()>),
}

/// The writer is gone; its own result says why.
#[derive(Debug)]
pub(crate) struct Gone;

/// The sending side of all writers. Files of one directory go to one writer: the kernel locks the
/// directory while it makes a file, so two would only wait for each other.
#[derive(Debug)]
pub(crate) struct Writers<'scope> {
    lanes: Vec<Lane<'scope>>,
    current: usize,
}

#[derive(Debug)]
struct Lane<'scope> {
    orders: SyncSender<Vec<Order>>,
    batch: Vec<Order>,
    thread: ScopedJoinHandle<'scope, Result<(), UnpackError>>,
}

impl<'scope> Writers<'scope> {
    pub(crate) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        count: usize,
        maker: Maker,
    ) -> Self {
        let lanes = (0..count.max(1))
            .map(|_| {
                let (orders, received) = sync_channel(WAITING);
                Lane {
                    orders,
                    batch: Vec::new(),
                    thread: scope.spawn(move || run(&received, maker)),
                }
            })
            .collect();
        Self { lanes, current: 0 }
    }

    /// Begins a file. Its directory exists, and nothing stands in its place.
    pub(crate) fn create(&mut self, dir: Arc<Dir>, name: Name, attributes: Attributes) {
        self.current = usize::try_from(dir.ino).unwrap_or(0) % self.lanes.len();
        self.order(Order::Create {
            dir,
            name,
            attributes,
        });
    }

    pub(crate) fn data(&mut self, slice: Slice) {
        self.order(Order::Data(slice));
    }

    pub(crate) fn end(&mut self) {
        self.order(Order::End);
    }

    fn order(&mut self, order: Order) {
        self.lanes[self.current].batch.push(order);
    }

    /// Hands over what was collected.
    pub(crate) fn flush(&mut self) -> Result<(), Gone> {
        for lane in &mut self.lanes {
            if !lane.batch.is_empty() {
                let batch = std::mem::take(&mut lane.batch);
                lane.orders.send(batch).map_err(|_| Gone)?;
            }
        }
        Ok(())
    }

    /// Waits until every file so far exists in full.
    pub(crate) fn settle(&mut self) -> Result<(), Gone> {
        let (done, settled) = channel();
        for lane in &mut self.lanes {
            lane.batch.push(Order::Settle(done.clone()));
        }
        drop(done);
        self.flush()?;
        for _ in &self.lanes {
            settled.recv().map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Ends the threads. The first error of a writer is the reason why the others were told to stop.
    pub(crate) fn finish(self) -> Result<(), UnpackError> {
        let mut result = Ok(());
        for lane in self.lanes {
            drop(lane.orders);
            let ended = lane.thread.join().expect("a writer does not panic");
            result = result.and(ended);
        }
        result
    }
}

/// A file that is being written.
struct Open {
    fd: OwnedFd,
    dir: Arc<Dir>,
    name: Name,
    attributes: Attributes,
}

fn run(batches: &Receiver<Vec<Order>>, maker: Maker) -> Result<(), UnpackError> {
    let mut open = None;
    while let Ok(batch) = batches.recv() {
        for order in batch {
            match order {
                Order::Create {
                    dir,
                    name,
                    attributes,
                } => open = Some(create(dir, name, attributes, maker)?),
                Order::Data(slice) => {
                    if let Some(file) = &open {
                        write_all(file, &slice)?;
                    }
                }
                Order::End => {
                    if let Some(file) = open.take() {
                        end(&file)?;
                    }
                }
                // Whoever asked may be gone because another writer failed.
                Order::Settle(done) => drop(done.send(())),
            }
        }
    }
    Ok(())
}

fn create(
    dir: Arc<Dir>,
    name: Name,
    attributes: Attributes,
    maker: Maker,
) -> Result<Open, UnpackError> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mode = Mode::from_bits_truncate(attributes.mode);
    let made = openat(&dir.fd, name.leaf(), flags, mode);
    let fd = made.map_err(|errno| UnpackError::kernel("create", &name, errno))?;
    if let Some((uid, gid)) = maker.chown(&attributes) {
        fchown(&fd, uid, gid).map_err(|errno| UnpackError::kernel("give away", &name, errno))?;
    }
    if attributes.mode & maker.umask != 0 {
        fchmod(&fd, mode).map_err(|errno| UnpackError::kernel("set the mode of", &name, errno))?;
    }
    Ok(Open {
        fd,
        dir,
        name,
        attributes,
    })
}

fn write_all(file: &Open, mut bytes: &[u8]) -> Result<(), UnpackError> {
    while !bytes.is_empty() {
        match write(&file.fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(UnpackError::kernel("write", &file.name, errno)),
        }
    }
    Ok(())
}

fn end(file: &Open) -> Result<(), UnpackError> {
    let mtime = TimeSpec::new(file.attributes.mtime, 0);
    futimens(&file.fd, &TimeSpec::UTIME_OMIT, &mtime)
        .map_err(|errno| UnpackError::kernel("set the time of", &file.name, errno))?;
    // Letting go of the directory only now keeps its time right.
    let _ = &file.dir;
    Ok(())
}
