//! What goes wrong on hosts, on purpose.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::shell::Output;

/// How sshd of a server behaves to new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sshd {
    /// Nobody listens.
    Refused,
    /// The connection is accepted, and then nothing.
    Silent,
    /// The connection is closed before the banner.
    Closed,
}

/// What happens to a command that a fault meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Strike {
    Answer(Output),
    Cut,
    Hang,
}

/// One rule: which commands, what happens, how often. Built up by its methods:
/// `CommandFault::on("mkfs.ext4").server("test-pg-1").after().cut()`.
#[derive(Clone, Debug)]
pub struct CommandFault {
    program: String,
    server: Option<String>,
    argument: Option<String>,
    after: bool,
    action: Strike,
    skip: u64,
    times: u64,
}

impl CommandFault {
    /// Meets a program. Without further words: exit 1 before the effect, once.
    pub fn on(program: &str) -> Self {
        Self {
            program: program.to_owned(),
            server: None,
            argument: None,
            after: false,
            action: Strike::Answer(Output::fail(1, format!("{program}: the sandbox says no"))),
            skip: 0,
            times: 1,
        }
    }

    /// Only on this server (name).
    pub fn server(mut self, name: &str) -> Self {
        self.server = Some(name.to_owned());
        self
    }

    /// Only when one of the arguments contains this text.
    pub fn argument(mut self, text: &str) -> Self {
        self.argument = Some(text.to_owned());
        self
    }

    /// The command has its effect first.
    pub fn after(mut self) -> Self {
        self.after = true;
        self
    }

    /// Exits like this, with this on standard error.
    pub fn exits(mut self, status: u32, stderr: &str) -> Self {
        self.action = Strike::Answer(Output {
            stdout: Vec::new(),
            stderr: stderr.as_bytes().to_vec(),
            status,
        });
        self
    }

    /// The whole SSH connection breaks.
    pub fn cut(mut self) -> Self {
        self.action = Strike::Cut;
        self
    }

    /// No answer, while the connection stays open.
    pub fn hang(mut self) -> Self {
        self.action = Strike::Hang;
        self
    }

    /// Lets the first `n` matching commands pass.
    pub fn skip(mut self, n: u64) -> Self {
        self.skip = n;
        self
    }

    /// How many matching commands it meets. The default is one.
    pub fn times(mut self, n: u64) -> Self {
        self.times = n;
        self
    }

    fn matches(&self, server: &str, argv: &[String]) -> bool {
        let Some((program, arguments)) = argv.split_first() else {
            return false;
        };
        super::tree::file_name(program) == self.program
            && self.server.as_deref().is_none_or(|s| s == server)
            && self
                .argument
                .as_deref()
                .is_none_or(|text| arguments.iter().any(|a| a.contains(text)))
    }
}

/// The switchboard of the simulated hosts. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct HostFaults(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    commands: Vec<Armed>,
    sshd: BTreeMap<String, Sshd>,
}

#[derive(Debug)]
struct Armed {
    fault: CommandFault,
    seen: u64,
    fired: u64,
}

impl HostFaults {
    /// Adds a fault; the first one that fires for a command wins.
    pub fn add(&self, fault: CommandFault) {
        self.lock().commands.push(Armed {
            fault,
            seen: 0,
            fired: 0,
        });
    }

    /// How sshd of this server (name) behaves from now on; `None`: as it should.
    pub fn sshd(&self, server: &str, behaviour: Option<Sshd>) {
        let mut state = self.lock();
        match behaviour {
            Some(behaviour) => state.sshd.insert(server.to_owned(), behaviour),
            None => state.sshd.remove(server),
        };
    }

    /// Takes all faults away.
    pub fn clear(&self) {
        *self.lock() = State::default();
    }

    /// Command faults that never fired. A test asserts that this is empty.
    pub fn unused(&self) -> Vec<String> {
        let state = self.lock();
        let unused = state.commands.iter().filter(|a| a.fired == 0);
        unused.map(|a| format!("{:?}", a.fault)).collect()
    }

    pub(super) fn sshd_of(&self, server: &str) -> Option<Sshd> {
        self.lock().sshd.get(server).copied()
    }

    /// What strikes this command, and whether after its effect.
    pub(super) fn strike(&self, server: &str, argv: &[String]) -> Option<(Strike, bool)> {
        let argv = super::shell::unwrap(argv);
        let mut state = self.lock();
        let matching = state.commands.iter_mut();
        for armed in matching.filter(|a| a.fault.matches(server, argv)) {
            armed.seen += 1;
            let fault = &armed.fault;
            if armed.seen > fault.skip && armed.seen <= fault.skip + fault.times {
                armed.fired += 1;
                return Some((fault.action.clone(), fault.after));
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
