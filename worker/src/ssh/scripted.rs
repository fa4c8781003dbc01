//! A host for the tests of jobs: it answers commands by a script and remembers them.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;

use super::error::SshError;
use super::host::{Command, Host, Output};

/// Decides what a command does. It may look at the files that were written, and change them.
type Script =
    dyn FnMut(&Command, &mut BTreeMap<String, Vec<u8>>) -> Result<Output, SshError> + Send;

/// A scripted host.
pub(crate) struct Scripted {
    script: Mutex<Box<Script>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    commands: Vec<Command>,
    files: BTreeMap<String, Vec<u8>>,
}

impl Scripted {
    /// A host that does what `script` says.
    pub(crate) fn new(
        script: impl FnMut(&Command, &mut BTreeMap<String, Vec<u8>>) -> Result<Output, SshError>
        + Send
        + 'static,
    ) -> Self {
        Self {
            script: Mutex::new(Box::new(script)),
            state: Mutex::default(),
        }
    }

    /// All commands so far, as lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        let state = self
            .state
            .lock()
            .expect("no test panics while it holds this");
        state
            .commands
            .iter()
            .map(|command| command.argv.join(" "))
            .collect()
    }
}

/// An output with status 0.
pub(crate) fn prints(text: &str) -> Result<Output, SshError> {
    Ok(Output {
        stdout: text.into(),
        ..Output::default()
    })
}

/// An output with another status.
pub(crate) fn fails(status: u32, stderr: &str) -> Result<Output, SshError> {
    Ok(Output {
        status,
        stderr: stderr.into(),
        ..Output::default()
    })
}

#[async_trait]
impl Host for Scripted {
    fn name(&self) -> &str {
        "root@scripted:22"
    }

    async fn execute(&self, command: &Command) -> Result<Output, SshError> {
        let mut state = self
            .state
            .lock()
            .expect("no test panics while it holds this");
        state.commands.push(command.clone());
        let mut script = self
            .script
            .lock()
            .expect("no test panics while it holds this");
        script(command, &mut state.files)
    }
}
