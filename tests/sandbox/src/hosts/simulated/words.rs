//! Splits text into words as a POSIX shell would.
//!
//! A command that comes over SSH must be plain words: anything that would need a shell is
//! refused, because workers must not build shell scripts out of values. A script given to
//! `sh -c` may have operators and positional parameters.

/// A word or an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Word(String),
    Operator(&'static str),
}

/// The words of a command line without any shell syntax.
pub(super) fn split(line: &str) -> Result<Vec<String>, String> {
    let tokens = Reader::new(line, None).read()?;
    let words = tokens.into_iter().map(|token| match token {
        Token::Word(word) => Ok(word),
        Token::Operator(operator) => Err(format!("{operator} needs a shell")),
    });
    words.collect()
}

/// The tokens of a script; `parameters` begin with `$0`.
pub(super) fn tokens(script: &str, parameters: &[String]) -> Result<Vec<Token>, String> {
    Reader::new(script, Some(parameters)).read()
}

/// An unquoted `*` of a script: stands for any number of characters of a file's name.
pub(super) const ANY: char = '\u{e000}';

/// Longer operators before their beginnings.
const OPERATORS: [&str; 10] = ["&&", "||", ">>", ">", "<", ";", "\n", "|", "&", "2>"];

struct Reader<'a> {
    rest: &'a str,
    parameters: Option<&'a [String]>,
    tokens: Vec<Token>,
    word: Option<String>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str, parameters: Option<&'a [String]>) -> Self {
        Self {
            rest: text,
            parameters,
            tokens: Vec::new(),
            word: None,
        }
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn push(&mut self, c: char) {
        self.word.get_or_insert_default().push(c);
    }

    fn end_word(&mut self) {
        self.tokens.extend(self.word.take().map(Token::Word));
    }

    fn read(mut self) -> Result<Vec<Token>, String> {
        while !self.rest.is_empty() {
            if let Some(operator) = self.operator() {
                self.end_word();
                self.rest = &self.rest[operator.len()..];
                self.tokens.push(Token::Operator(operator));
                continue;
            }
            let Some(c) = self.next() else { break };
            match c {
                ' ' | '\t' => self.end_word(),
                '\'' => {
                    let (inside, after) = self.rest.split_once('\'').ok_or("unterminated '")?;
                    self.word.get_or_insert_default().push_str(inside);
                    self.rest = after;
                }
                '"' => self.double_quoted()?,
                '\\' => {
                    let c = self.next().ok_or("nothing after \\")?;
                    self.push(c);
                }
                '$' => self.parameter()?,
                '[' if self.word.is_none() => self.push(c),
                '#' | '~' if self.word.is_some() => self.push(c),
                '*' if self.parameters.is_some() => self.push(ANY),
                '(' | ')' | '`' | '*' | '?' | '[' | '#' | '~' => {
                    return Err(format!("{c} needs a shell"));
                }
                c => self.push(c),
            }
        }
        self.end_word();
        Ok(self.tokens)
    }

    fn operator(&self) -> Option<&'static str> {
        let starts = |operator: &&&str| {
            // `2>` only where no word is being read: `x2>y` is `x2 > y`.
            self.rest.starts_with(**operator) && (**operator != "2>" || self.word.is_none())
        };
        OPERATORS.iter().find(starts).copied()
    }

    fn double_quoted(&mut self) -> Result<(), String> {
        self.word.get_or_insert_default();
        loop {
            match self.next().ok_or("unterminated \"")? {
                '"' => return Ok(()),
                '\\' => match self.next().ok_or("unterminated \"")? {
                    c @ ('"' | '\\' | '$' | '`') => self.push(c),
                    c => {
                        self.push('\\');
                        self.push(c);
                    }
                },
                '$' => self.parameter()?,
                '`' => return Err("` needs a shell".to_owned()),
                c => self.push(c),
            }
        }
    }

    /// `$1` in a script; refused elsewhere.
    fn parameter(&mut self) -> Result<(), String> {
        let parameters = self.parameters.ok_or("$ needs a shell")?;
        let digit = self.next().and_then(|c| c.to_digit(10));
        let number = digit.ok_or("only $0 to $9 are known")?;
        let value = parameters.get(number as usize);
        let value = value.map_or("", String::as_str);
        self.word.get_or_insert_default().push_str(value);
        Ok(())
    }
}
