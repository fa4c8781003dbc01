//! Runs one command on one machine.

use super::machine::View;
use super::script::Script;
use super::{blocks, files, mounts, system};

/// What a command gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Exit status.
    pub status: u32,
}

impl Output {
    /// Success with this output.
    pub fn ok(stdout: impl Into<Vec<u8>>) -> Self {
        Self {
            stdout: stdout.into(),
            ..Self::default()
        }
    }

    /// Failure with a message; the line end is added.
    pub fn fail(status: u32, stderr: impl std::fmt::Display) -> Self {
        Self {
            stderr: format!("{stderr}\n").into_bytes(),
            status,
            ..Self::default()
        }
    }

    /// An exit status and nothing else.
    pub(super) fn silent(status: u32) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }
}

/// Whether the command reads standard input to its end.
pub(super) fn reads_stdin(argv: &[String]) -> bool {
    let argv = unwrap(argv);
    let program = argv.first().map_or("", |p| super::tree::file_name(p));
    let operands = argv.iter().skip(1).filter(|a| !a.starts_with('-'));
    match program {
        "tee" => true,
        "cat" | "sha256sum" => operands.count() == 0 || argv.iter().any(|a| a == "-"),
        "sh" | "bash" => Script::of(argv).is_ok_and(|script| script.reads_stdin()),
        _ => false,
    }
}

/// Runs a command.
pub(super) fn run(view: &mut View<'_>, argv: &[String], stdin: &[u8]) -> Output {
    let argv = unwrap(argv);
    let Some((program, args)) = argv.split_first() else {
        return Output::default();
    };
    let name = super::tree::file_name(program);
    if let "sh" | "bash" = name {
        return match Script::of(argv) {
            Ok(script) => script.run(view, stdin),
            Err(why) => Output::fail(2, format!("sandbox: not a script it knows: {why}")),
        };
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    files::run(view, name, &args, stdin)
        .or_else(|| blocks::run(view, name, &args))
        .or_else(|| mounts::run(view, name, &args))
        .or_else(|| system::run(view, name, &args))
        .unwrap_or_else(|| Output::fail(127, format!("bash: line 1: {program}: command not found")))
}

/// Takes `env A=b`, `timeout 5`, `nice`, `sudo -n` off the front.
pub(super) fn unwrap(argv: &[String]) -> &[String] {
    let Some((program, mut rest)) = argv.split_first() else {
        return argv;
    };
    let mut positional = match program.as_str() {
        "env" | "nice" | "sudo" => 0,
        "timeout" => 1,
        _ => return argv,
    };
    while let Some((first, after)) = rest.split_first() {
        let option = first.starts_with('-');
        let assignment = program == "env" && first.contains('=');
        if !option && !assignment {
            if positional == 0 {
                break;
            }
            positional -= 1;
        }
        // `timeout -k 5 30 …`
        rest = match (first.as_str(), after.split_first()) {
            ("-k" | "-s" | "-n" | "-u", Some((_, after))) if program != "sudo" || first == "-u" => {
                after
            }
            _ => after,
        };
    }
    unwrap(rest)
}

/// Options and operands of a command, as getopt would sort them.
#[derive(Debug, Default)]
pub(super) struct Args<'a> {
    options: Vec<(String, Option<&'a str>)>,
    pub(super) operands: Vec<&'a str>,
}

impl<'a> Args<'a> {
    /// `with_value` names the short options (as letters) and long ones (as words) that take one.
    pub(super) fn parse(args: &[&'a str], short: &str, long: &[&str]) -> Self {
        let mut parsed = Self::default();
        let mut args = args.iter().copied();
        while let Some(arg) = args.next() {
            if arg == "--" {
                parsed.operands.extend(args);
                break;
            }
            if let Some(option) = arg.strip_prefix("--") {
                let (name, value) = match option.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None if long.contains(&option) => (option, args.next()),
                    None => (option, None),
                };
                parsed.options.push((name.to_owned(), value));
            } else if let Some(letters) = arg.strip_prefix('-').filter(|l| !l.is_empty()) {
                for (at, letter) in letters.char_indices() {
                    if short.contains(letter) {
                        let rest = &letters[at + letter.len_utf8()..];
                        let value = match rest {
                            "" => args.next(),
                            rest => Some(rest),
                        };
                        parsed.options.push((letter.to_string(), value));
                        break;
                    }
                    parsed.options.push((letter.to_string(), None));
                }
            } else {
                parsed.operands.push(arg);
            }
        }
        parsed
    }

    /// Whether one of these options is given.
    pub(super) fn has(&self, names: &[&str]) -> bool {
        self.options
            .iter()
            .any(|(n, _)| names.contains(&n.as_str()))
    }

    /// The value of one of these options; the last one counts.
    pub(super) fn value(&self, names: &[&str]) -> Option<&'a str> {
        self.values(names).last()
    }

    /// All values of these options.
    pub(super) fn values(&self, names: &[&str]) -> impl Iterator<Item = &'a str> {
        let given = |(name, value): &(String, Option<&'a str>)| {
            names.contains(&name.as_str()).then_some(*value).flatten()
        };
        self.options.iter().filter_map(given)
    }
}
