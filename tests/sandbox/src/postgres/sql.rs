//! The part of SQL that is understood: `select` of expressions, from nothing, a function or a table.

/// An error as PostgreSQL reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SqlError {
    /// The SQLSTATE.
    pub(super) code: &'static str,
    /// The words.
    pub(super) message: String,
    /// Where in the query, counted from 1.
    pub(super) position: Option<usize>,
}

impl SqlError {
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            position: None,
        }
    }

    pub(super) fn at(mut self, position: usize) -> Self {
        self.position = Some(position);
        self
    }

    fn unplayed(what: &str, position: usize) -> Self {
        Self::new(
            "0A000",
            format!("the sandbox's PostgreSQL does not play `{what}`"),
        )
        .at(position)
    }
}

/// A query.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Select {
    pub(super) columns: Vec<Column>,
    pub(super) from: Option<From>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    pub(super) expression: Expression,
    pub(super) name: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    /// A column, and where it stands.
    Name(String, usize),
    /// A function of arguments, and where it stands.
    Call(String, Vec<Expression>, usize),
    Number(i64),
    Text(String),
    Star,
    Cast(Box<Expression>, String, usize),
}

/// What it is asked of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct From {
    pub(super) schema: Option<String>,
    pub(super) name: String,
    /// What it is called in the query.
    pub(super) alias: String,
    /// Whether it is a function.
    pub(super) called: bool,
    pub(super) position: usize,
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Number(i64),
    Text(String),
    Sign(&'static str),
}

/// Words that begin statements, which are SQL and not played.
const STATEMENTS: [&str; 20] = [
    "alter",
    "begin",
    "checkpoint",
    "close",
    "commit",
    "copy",
    "create",
    "delete",
    "drop",
    "explain",
    "grant",
    "insert",
    "reset",
    "rollback",
    "set",
    "show",
    "truncate",
    "update",
    "vacuum",
    "with",
];

/// Words that go on after a source, the same.
const CLAUSES: [&str; 14] = [
    "where", "group", "having", "order", "limit", "offset", "union", "join", "left", "inner",
    "cross", "for", "window", "except",
];

/// Reads one statement; `None` when there is none.
pub(super) fn parse(text: &str) -> Result<Option<Select>, SqlError> {
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        end: text.chars().count() + 1,
    };
    while parser.eat(";") {}
    let Some((first, position)) = parser.tokens.get(parser.next).cloned() else {
        return Ok(None);
    };
    match &first {
        Token::Word(word) if word == "select" => parser.next += 1,
        Token::Word(word) if STATEMENTS.contains(&word.as_str()) => {
            return Err(SqlError::unplayed(word, position));
        }
        _ => return Err(parser.unexpected()),
    }
    let mut columns = vec![parser.column()?];
    while parser.eat(",") {
        columns.push(parser.column()?);
    }
    let from = match parser.word("from") {
        true => Some(parser.source()?),
        false => None,
    };
    while parser.eat(";") {}
    match parser.tokens.get(parser.next) {
        None => Ok(Some(Select { columns, from })),
        Some((Token::Word(word), position)) if CLAUSES.contains(&word.as_str()) => {
            Err(SqlError::unplayed(word, *position))
        }
        // A comma: several sources. Something after a semicolon: several statements.
        Some((Token::Sign(","), position)) => Err(SqlError::unplayed(",", *position)),
        Some(_) => Err(parser.unexpected()),
    }
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    next: usize,
    end: usize,
}

impl Parser {
    fn eat(&mut self, sign: &str) -> bool {
        let there = matches!(self.tokens.get(self.next), Some((Token::Sign(s), _)) if *s == sign);
        self.next += usize::from(there);
        there
    }

    fn word(&mut self, wanted: &str) -> bool {
        let there = matches!(self.tokens.get(self.next), Some((Token::Word(w), _)) if w == wanted);
        self.next += usize::from(there);
        there
    }

    fn need(&mut self, sign: &str) -> Result<(), SqlError> {
        if self.eat(sign) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    fn unexpected(&self) -> SqlError {
        match self.tokens.get(self.next) {
            None => SqlError::new("42601", "syntax error at end of input").at(self.end),
            Some((token, position)) => {
                let shown = match token {
                    Token::Word(word) => word.clone(),
                    Token::Quoted(word) => format!("\"{word}\""),
                    Token::Number(number) => number.to_string(),
                    Token::Text(text) => format!("'{text}'"),
                    Token::Sign(sign) => (*sign).to_owned(),
                };
                SqlError::new("42601", format!("syntax error at or near \"{shown}\"")).at(*position)
            }
        }
    }

    fn column(&mut self) -> Result<Column, SqlError> {
        let expression = self.expression()?;
        let named = self.word("as");
        let name = match self.tokens.get(self.next) {
            Some((Token::Word(word), _))
                if named || (word != "from" && !CLAUSES.contains(&word.as_str())) =>
            {
                Some(word.clone())
            }
            Some((Token::Quoted(word), _)) => Some(word.clone()),
            _ if named => return Err(self.unexpected()),
            _ => None,
        };
        self.next += usize::from(name.is_some());
        Ok(Column { expression, name })
    }

    fn expression(&mut self) -> Result<Expression, SqlError> {
        let Some((token, position)) = self.tokens.get(self.next).cloned() else {
            return Err(self.unexpected());
        };
        self.next += 1;
        let mut expression = match token {
            Token::Number(number) => Expression::Number(number),
            Token::Text(text) => Expression::Text(text),
            Token::Sign("*") => Expression::Star,
            Token::Word(word) if word != "from" => self.named(word, position)?,
            Token::Quoted(word) => self.named(word, position)?,
            _ => {
                self.next -= 1;
                return Err(self.unexpected());
            }
        };
        while self.eat("::") {
            let Some((Token::Word(kind), position)) = self.tokens.get(self.next).cloned() else {
                return Err(self.unexpected());
            };
            self.next += 1;
            expression = Expression::Cast(Box::new(expression), kind, position);
        }
        Ok(expression)
    }

    fn named(&mut self, word: String, position: usize) -> Result<Expression, SqlError> {
        if !self.eat("(") {
            return Ok(Expression::Name(word, position));
        }
        let mut arguments = Vec::new();
        if !self.eat(")") {
            arguments.push(self.expression()?);
            while self.eat(",") {
                arguments.push(self.expression()?);
            }
            self.need(")")?;
        }
        Ok(Expression::Call(word, arguments, position))
    }

    fn source(&mut self) -> Result<From, SqlError> {
        let position = self
            .tokens
            .get(self.next)
            .map_or(self.end, |(_, position)| *position);
        let first = self.identifier()?;
        let (schema, name) = match self.eat(".") {
            true => (Some(first), self.identifier()?),
            false => (None, first),
        };
        let called = self.eat("(");
        if called {
            self.need(")")?;
        }
        // An alias, with or without its word.
        let mut alias = name.clone();
        if self.word("as") {
            alias = self.identifier()?;
        } else if let Some((Token::Word(word), _)) = self.tokens.get(self.next)
            && !CLAUSES.contains(&word.as_str())
        {
            alias.clone_from(word);
            self.next += 1;
        }
        Ok(From {
            schema,
            name,
            alias,
            called,
            position,
        })
    }

    fn identifier(&mut self) -> Result<String, SqlError> {
        match self.tokens.get(self.next) {
            Some((Token::Word(word) | Token::Quoted(word), _)) => {
                self.next += 1;
                Ok(word.clone())
            }
            _ => Err(self.unexpected()),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<(Token, usize)>, SqlError> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = chars.get(at).copied() {
        let begin = at;
        let run = |from: usize, fits: fn(char) -> bool| {
            chars[from..]
                .iter()
                .position(|c| !fits(*c))
                .map_or(chars.len(), |length| from + length)
        };
        let token = match first {
            c if c.is_whitespace() => {
                at += 1;
                continue;
            }
            c if c.is_alphabetic() || c == '_' => {
                at = run(at, |c| c.is_alphanumeric() || matches!(c, '_' | '$'));
                Token::Word(chars[begin..at].iter().collect::<String>().to_lowercase())
            }
            c if c.is_ascii_digit() => {
                at = run(at, |c| c.is_ascii_digit());
                let digits: String = chars[begin..at].iter().collect();
                let number = digits.parse();
                Token::Number(number.map_err(|_| SqlError::unplayed(&digits, begin + 1))?)
            }
            '\'' | '"' => {
                let mut inside = String::new();
                at += 1;
                loop {
                    match (chars.get(at), chars.get(at + 1)) {
                        (Some(c), Some(next)) if *c == first && *next == first => {
                            inside.push(first);
                            at += 2;
                        }
                        (Some(c), _) if *c == first => break at += 1,
                        (Some(c), _) => {
                            inside.push(*c);
                            at += 1;
                        }
                        (None, _) => {
                            let kind = if first == '"' { "identifier" } else { "string" };
                            let rest: String = chars[begin..].iter().collect();
                            let message =
                                format!("unterminated quoted {kind} at or near \"{rest}\"");
                            return Err(SqlError::new("42601", message).at(begin + 1));
                        }
                    }
                }
                if first == '"' {
                    Token::Quoted(inside)
                } else {
                    Token::Text(inside)
                }
            }
            ':' if chars.get(at + 1) == Some(&':') => {
                at += 2;
                Token::Sign("::")
            }
            c => {
                let signs = ["(", ")", ",", ".", "*", ";"];
                let sign = signs.into_iter().find(|sign| sign.chars().eq([c]));
                let Some(sign) = sign else {
                    return Err(SqlError::unplayed(&c.to_string(), begin + 1));
                };
                at += 1;
                Token::Sign(sign)
            }
        };
        tokens.push((token, begin + 1));
    }
    Ok(tokens)
}
