//! Reading an open directory; the standard library wants a path.
#![expect(unsafe_code, reason = "libc has no safe call for this")]

use std::ffi::CStr;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::libc;

/// The names in a directory, without `.` and `..`, as far as they are there now.
pub(crate) fn names(directory: OwnedFd) -> Result<Vec<Vec<u8>>, Errno> {
    let stream = Stream::open(directory)?;
    let mut names = Vec::new();
    while let Some(name) = stream.next()? {
        if !matches!(&name[..], b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

struct Stream(NonNull<libc::DIR>);

impl Stream {
    fn open(directory: OwnedFd) -> Result<Self, Errno> {
        let fd = directory.into_raw_fd();
        // SAFETY: the descriptor is open and ours; on success it belongs to the stream.
        let stream = unsafe { libc::fdopendir(fd) };
        NonNull::new(stream).map(Self).ok_or_else(|| {
            let errno = Errno::last();
            // SAFETY: the stream was not made, so the descriptor is still ours, and nobody else's.
            unsafe { libc::close(fd) };
            errno
        })
    }

    fn next(&self) -> Result<Option<Vec<u8>>, Errno> {
        Errno::clear();
        // SAFETY: the stream is open, and only this thread has it.
        let entry = unsafe { libc::readdir(self.0.as_ptr()) };
        if entry.is_null() {
            return match Errno::last_raw() {
                0 => Ok(None),
                errno => Err(Errno::from_raw(errno)),
            };
        }
        // SAFETY: the entry is valid until the next call, and its name ends with NUL.
        let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) };
        Ok(Some(name.to_bytes().to_vec()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the stream is open, and nobody uses it any more.
        unsafe { libc::closedir(self.0.as_ptr()) };
    }
}
