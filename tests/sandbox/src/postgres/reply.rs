//! The messages that a server sends.

use bytes::{BufMut, BytesMut};

use super::query::Field;
use super::sql::SqlError;
use super::value::{Type, Value, text};

/// PostgreSQL counts from here.
const EPOCH: i64 = 946_684_800;

/// Messages on their way.
#[derive(Debug, Default)]
pub(super) struct Replies(pub(super) BytesMut);

impl Replies {
    fn message(&mut self, tag: u8, body: impl FnOnce(&mut BytesMut)) {
        self.0.put_u8(tag);
        let begin = self.0.len();
        self.0.put_u32(0);
        body(&mut self.0);
        let length = u32::try_from(self.0.len() - begin).expect("messages are small");
        self.0[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// What is not about data: authentication, parameters, the end of something.
    pub(super) fn plain(&mut self, tag: u8, body: &[u8]) {
        self.message(tag, |buffer| buffer.put_slice(body));
    }

    pub(super) fn authentication(&mut self, code: u32, body: &[u8]) {
        self.message(b'R', |buffer| {
            buffer.put_u32(code);
            buffer.put_slice(body);
        });
    }

    pub(super) fn parameter(&mut self, name: &str, value: &str) {
        self.plain(b'S', format!("{name}\0{value}\0").as_bytes());
    }

    pub(super) fn ready(&mut self) {
        self.plain(b'Z', b"I");
    }

    pub(super) fn error(&mut self, severity: &str, error: &SqlError) {
        self.message(b'E', |buffer| {
            let mut field = |code: u8, text: &str| {
                buffer.put_u8(code);
                buffer.put_slice(text.as_bytes());
                buffer.put_u8(0);
            };
            field(b'S', severity);
            field(b'V', severity);
            field(b'C', error.code);
            field(b'M', &error.message);
            if let Some(position) = error.position {
                field(b'P', &position.to_string());
            }
            buffer.put_u8(0);
        });
    }

    pub(super) fn row_description(&mut self, fields: &[Field], binary: &[bool]) {
        self.message(b'T', |buffer| {
            buffer.put_u16(count(fields.len()));
            for (at, field) in fields.iter().enumerate() {
                buffer.put_slice(field.name.as_bytes());
                buffer.put_u8(0);
                buffer.put_u32(0); // of no table
                buffer.put_u16(0);
                buffer.put_u32(field.kind.oid());
                buffer.put_i16(field.kind.size());
                buffer.put_i32(-1);
                buffer.put_u16(u16::from(is_binary(binary, at)));
            }
        });
    }

    pub(super) fn row(&mut self, fields: &[Field], row: &[Value], binary: &[bool]) {
        self.message(b'D', |buffer| {
            buffer.put_u16(count(row.len()));
            for (at, (value, field)) in row.iter().zip(fields).enumerate() {
                if *value == Value::Null {
                    buffer.put_i32(-1);
                    continue;
                }
                let bytes = match is_binary(binary, at) {
                    true => bytes(value, field.kind),
                    false => text(value).into_bytes(),
                };
                buffer.put_u32(u32::try_from(bytes.len()).expect("values are small"));
                buffer.put_slice(&bytes);
            }
        });
    }

    pub(super) fn complete(&mut self, rows: usize) {
        self.plain(b'C', format!("SELECT {rows}\0").as_bytes());
    }
}

fn count(of: usize) -> u16 {
    u16::try_from(of).expect("a query has few columns")
}

/// No format: all text; one: that of all.
fn is_binary(formats: &[bool], at: usize) -> bool {
    match formats {
        [] => false,
        [all] => *all,
        each => each.get(at).copied().unwrap_or_default(),
    }
}

/// A value in PostgreSQL's binary form.
fn bytes(value: &Value, kind: Type) -> Vec<u8> {
    match value {
        Value::Bool(value) => vec![u8::from(*value)],
        Value::Int(number) => match kind.size() {
            4 => number.to_be_bytes()[4..].to_vec(),
            _ => number.to_be_bytes().to_vec(),
        },
        Value::Lsn(lsn) => lsn.to_be_bytes().to_vec(),
        Value::Timestamp(at) => (at.as_microsecond() - EPOCH * 1_000_000)
            .to_be_bytes()
            .to_vec(),
        Value::Text(_) | Value::Null => text(value).into_bytes(),
    }
}
