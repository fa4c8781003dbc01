//! Values and their types, as PostgreSQL has them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// PostgreSQL's type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Type {
    Bool,
    Int4,
    Int8,
    Lsn,
    Oid,
    Text,
    Timestamp,
    Xid,
}

/// What stands in a column.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// Also of types that are written as numbers.
    Int(i64),
    Lsn(u64),
    Text(String),
    Timestamp(Timestamp),
}

pub(super) fn order(one: &Value, other: &Value) -> std::cmp::Ordering {
    match (one, other) {
        (Value::Int(one), Value::Int(other)) => one.cmp(other),
        (Value::Lsn(one), Value::Lsn(other)) => one.cmp(other),
        (Value::Timestamp(one), Value::Timestamp(other)) => one.cmp(other),
        (one, other) => text(one).cmp(&text(other)),
    }
}

/// A value as PostgreSQL writes it, in UTC.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "t".to_owned(),
        Value::Bool(false) => "f".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Lsn(lsn) => format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF),
        Value::Text(text) => text.clone(),
        Value::Timestamp(at) => {
            let utc = at.to_zoned(TimeZone::UTC);
            let micros = utc.subsec_nanosecond() / 1000;
            let seconds = utc.strftime("%Y-%m-%d %H:%M:%S");
            match micros {
                0 => format!("{seconds}+00"),
                micros => format!(
                    "{seconds}.{}+00",
                    format!("{micros:06}").trim_end_matches('0')
                ),
            }
        }
    }
}

impl Type {
    /// Its number in `pg_type`.
    pub(super) fn oid(self) -> u32 {
        match self {
            Self::Bool => 16,
            Self::Int8 => 20,
            Self::Int4 => 23,
            Self::Text => 25,
            Self::Oid => 26,
            Self::Xid => 28,
            Self::Timestamp => 1184,
            Self::Lsn => 3220,
        }
    }

    /// How many bytes it has; -1 when that varies.
    pub(super) fn size(self) -> i16 {
        match self {
            Self::Bool => 1,
            Self::Int4 | Self::Oid | Self::Xid => 4,
            Self::Int8 | Self::Timestamp | Self::Lsn => 8,
            Self::Text => -1,
        }
    }

    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Lsn => "pg_lsn",
            Self::Oid => "oid",
            Self::Text => "text",
            Self::Timestamp => "timestamp with time zone",
            Self::Xid => "xid",
        }
    }
}
