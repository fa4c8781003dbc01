//! Short scripts for `sh -c`: simple commands with redirections, joined by `&&`, `||` or `;`.
//! A `*` in the last part of a path. No pipes, no variables but the positional ones, no control
//! flow: who needs those needs a real host.

use super::machine::View;
use super::shell::{self, Output};
use super::words::{ANY, Token, tokens};

/// A parsed script.
#[derive(Debug, Default)]
pub(super) struct Script {
    steps: Vec<Step>,
    /// `set -e`
    stop_on_error: bool,
}

#[derive(Debug, Default)]
struct Step {
    /// What stands before it: `&&`, `||` or `;`.
    joint: &'static str,
    argv: Vec<String>,
    input: Option<String>,
    output: Option<String>,
    append: bool,
    /// `2>/dev/null`
    quiet: bool,
}

impl Script {
    /// Of `sh -c SCRIPT NAME ARGUMENTS…`.
    pub(super) fn of(argv: &[String]) -> Result<Self, String> {
        let ([_, option, script, parameters @ ..], true) = (argv, argv.len() > 2) else {
            return Err("only sh -c SCRIPT is known".to_owned());
        };
        let letters = option.strip_prefix('-').unwrap_or_default();
        if !letters.ends_with('c') || letters.chars().any(|c| !"ceux".contains(c)) {
            return Err(format!("the option {option}"));
        }
        let mut parsed = Self {
            stop_on_error: letters.contains('e'),
            ..Self::default()
        };
        let mut step = Step::default();
        let mut tokens = tokens(script, parameters)?.into_iter();
        while let Some(token) = tokens.next() {
            match token {
                Token::Word(word) => step.argv.push(word),
                Token::Operator(joint @ ("&&" | "||" | ";" | "\n")) => {
                    parsed.steps.push(step);
                    step = Step {
                        joint,
                        ..Step::default()
                    };
                }
                Token::Operator(operator @ ("<" | ">" | ">>" | "2>")) => {
                    let Some(Token::Word(path)) = tokens.next() else {
                        return Err(format!("nothing after {operator}"));
                    };
                    match operator {
                        "<" => step.input = Some(path),
                        "2>" if path == "/dev/null" => step.quiet = true,
                        "2>" => return Err("2> leads to /dev/null only".to_owned()),
                        _ => {
                            step.append = operator == ">>";
                            step.output = Some(path);
                        }
                    }
                }
                Token::Operator(other) => return Err(format!("{other} is not known")),
            }
        }
        parsed.steps.push(step);
        Ok(parsed)
    }

    pub(super) fn reads_stdin(&self) -> bool {
        let reads = |step: &Step| step.input.is_none() && shell::reads_stdin(&step.argv);
        self.steps.iter().any(reads)
    }

    pub(super) fn run(&self, view: &mut View<'_>, stdin: &[u8]) -> Output {
        let mut all = Output::default();
        let mut stdin = stdin;
        for step in &self.steps {
            let skipped = match step.joint {
                "&&" => all.status != 0,
                "||" => all.status == 0,
                _ => all.status != 0 && self.stop_on_error,
            };
            if skipped || step.argv.is_empty() {
                continue;
            }
            if step.argv[0] == "exit" {
                let status = step.argv.get(1).and_then(|s| s.parse().ok());
                all.status = status.unwrap_or(all.status);
                return all;
            }
            let mut output = step.run(view, stdin);
            if step.input.is_none() && shell::reads_stdin(&step.argv) {
                // Who reads standard input reads all of it.
                stdin = b"";
            }
            all.stdout.append(&mut output.stdout);
            all.stderr.append(&mut output.stderr);
            all.status = output.status;
        }
        all
    }
}

/// The paths that a word with one `*` stands for; the word itself when there are none.
fn expand(view: &mut View<'_>, word: &str) -> Vec<String> {
    let literal = || vec![word.replace(ANY, "*")];
    let Some((folder, name)) = word.rsplit_once('/').filter(|(_, name)| name.contains(ANY)) else {
        return literal();
    };
    let (begin, end) = name.split_once(ANY).unwrap_or((name, ""));
    let listed = shell::run(view, &["ls".to_owned(), format!("{folder}/")], b"");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let fits =
        |n: &&str| n.len() >= begin.len() + end.len() && n.starts_with(begin) && n.ends_with(end);
    let found: Vec<String> = listed
        .lines()
        .filter(fits)
        .map(|n| format!("{folder}/{n}"))
        .collect();
    if found.is_empty() { literal() } else { found }
}

impl Step {
    fn run(&self, view: &mut View<'_>, stdin: &[u8]) -> Output {
        if self.argv[0] == "umask" {
            let mask = self.argv.get(1).map(|m| u32::from_str_radix(m, 8));
            return match mask {
                Some(Ok(mask)) => {
                    view.umask = mask;
                    Output::default()
                }
                _ => Output::fail(2, "sh: 1: umask: bad mask"),
            };
        }
        let input = match &self.input {
            None => Ok(stdin.to_vec()),
            Some(path) => view.read(path).map_err(|e| (path, e)),
        };
        let input = match input {
            Ok(input) => input,
            Err((path, e)) => return Output::fail(2, format!("sh: 1: cannot open {path}: {e}")),
        };
        // The shell opens, and so empties, the output before the command runs.
        if let Some(path) = &self.output
            && !self.append
            && let Err(e) = view.write(path, Vec::new())
        {
            return Output::fail(2, format!("sh: 1: cannot create {path}: {e}"));
        }
        let argv: Vec<String> = self.argv.iter().flat_map(|w| expand(view, w)).collect();
        let mut output = shell::run(view, &argv, &input);
        if let Some(path) = &self.output {
            let mut bytes = match self.append {
                true => view.read(path).unwrap_or_default(),
                false => Vec::new(),
            };
            bytes.append(&mut output.stdout);
            if let Err(e) = view.write(path, bytes) {
                return Output::fail(2, format!("sh: 1: cannot create {path}: {e}"));
            }
        }
        if self.quiet {
            output.stderr.clear();
        }
        output
    }
}
