//! Hard links: made at the end, and inside the tree only.

use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::libc;
use nix::unistd::linkat;

use super::error::{Reason, UnpackError};
use super::name::Name;
use super::tree::{Problem, Tree, kind_of};

/// How often hard links are tried again that point to other hard links.
const ROUNDS: u32 = 8;

/// A hard link that is not made yet.
#[derive(Debug)]
pub(super) struct HardLink {
    name: Name,
    target: Name,
    pub(super) place: u64,
}

impl Tree<'_> {
    /// Hard links wait for the end: their target may come later, and nothing may be written through one.
    pub(super) fn hard_link(&mut self, name: Name, target: Name) -> Result<(), Problem> {
        let dir = self.parent(&name)?;
        let place = self.claim(&dir, &name)?;
        self.links.push(HardLink {
            name,
            target,
            place,
        });
        Ok(())
    }

    pub(super) fn make_links(&mut self) -> Result<(), UnpackError> {
        let mut links = std::mem::take(&mut self.links);
        for _ in 0..ROUNDS {
            let mut missing = Vec::new();
            for link in links {
                if !self.make_link(&link)? {
                    missing.push(link);
                }
            }
            links = missing;
            if links.is_empty() {
                break;
            }
        }
        match links.first() {
            None => Ok(()),
            Some(link) => Err(UnpackError::refused(
                link.name.as_bytes(),
                Reason::MissingTarget(link.target.to_string()),
            )),
        }
    }

    /// Makes one hard link; `false` when its target is not there.
    fn make_link(&mut self, link: &HardLink) -> Result<bool, UnpackError> {
        let failed = |errno| UnpackError::kernel("link", &link.name, errno);
        let from = match self.dirs.open(link.target.parent()) {
            Ok(dir) => dir,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(false),
            Err(errno) => return Err(failed(errno)),
        };
        match kind_of(&from, link.target.leaf()) {
            None => return Ok(false),
            Some(libc::S_IFREG | libc::S_IFLNK) => {}
            Some(_) => {
                return Err(UnpackError::refused(
                    link.name.as_bytes(),
                    Reason::LinkToNoFile(link.target.to_string()),
                ));
            }
        }
        let to = self.dirs.open(link.name.parent()).map_err(failed)?;
        // Without AT_SYMLINK_FOLLOW a link to a symbolic link is just that.
        let linked = linkat(
            &from.fd,
            link.target.leaf(),
            &to.fd,
            link.name.leaf(),
            AtFlags::empty(),
        );
        match linked {
            Ok(()) => Ok(true),
            // Only a directory: entries below the link's own name made one.
            Err(Errno::EEXIST) => Err(UnpackError::refused(
                link.name.as_bytes(),
                Reason::ReplacesDirectory,
            )),
            Err(errno) => Err(failed(errno)),
        }
    }
}
