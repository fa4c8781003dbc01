//! The process that becomes the program.

use std::ffi::{CString, NulError};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{execve, fchdir, setsid};

use super::error::{Failure, failed};
use super::init::above_two;
use super::program::{self, Found};
use super::spec::Spec;
use super::start::Stdio;
use crate::sys::open_in;
use crate::sys::process::{
    Close, close_from, default_limits, place, take_terminal, unblock_signals,
};

/// Becomes the program. Comes back only to tell why it did not.
pub(crate) fn run(spec: &Spec, stdio: &Stdio) -> Failure {
    match prepare(spec, stdio).and_then(|found| become_program(spec, &found)) {
        Ok(never) => match never {},
        Err(failure) => failure,
    }
}

fn prepare(spec: &Spec, stdio: &Stdio) -> Result<Found, Failure> {
    // In a session of its own, it has no terminal that it could type into (TIOCSTI).
    setsid().map_err(failed("make a session for", &spec.args[0]))?;
    let stdio = [&stdio.stdin, &stdio.stdout, &stdio.stderr];
    let [stdin, stdout, stderr] = stdio.map(above_two);
    for (number, fd) in (0..).zip([stdin?, stdout?, stderr?]) {
        place(fd, number).map_err(failed("give", "input and output"))?;
    }
    take_terminal(std::io::stdin());
    default_limits().map_err(failed("set the resource limits of", &spec.args[0]))?;

    let root =
        open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed("open", "/"))?;
    // Not through /proc/self/fd/N, which leads out of the image (CVE-2024-21626).
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    open_in(&root, Path::new(&spec.cwd), flags, ResolveFlag::empty())
        .and_then(fchdir)
        .map_err(failed("enter the directory", &spec.cwd))?;
    program::find(&root, &spec.args[0], &spec.env, &spec.cwd)
}

fn become_program(spec: &Spec, found: &Found) -> Result<std::convert::Infallible, Failure> {
    let strings = |texts: &mut dyn Iterator<Item = String>| {
        let texts: Result<Vec<_>, NulError> = texts.map(CString::new).collect();
        texts.map_err(|_| Failure::kernel("run", &spec.args[0], Errno::EINVAL))
    };
    let path = strings(&mut [found.path.clone()].into_iter())?;
    let args = strings(&mut spec.args.iter().cloned())?;
    let env = strings(
        &mut spec
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}")),
    )?;
    close_from(3, Close::OnExec).map_err(failed("close the descriptors of", &spec.args[0]))?;
    unblock_signals();
    execve(&path[0], &args, &env).map_err(|errno| Failure::NotExecutable {
        command: spec.args[0].clone(),
        reason: errno.desc().to_owned(),
    })
}
