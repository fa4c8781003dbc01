//! What a query answers of a data directory.

use jiff::Timestamp;

use super::data::{Data, Table};
use super::sql::{Expression, From, Select, SqlError};
use super::value::{Type, Value, order, text};

/// A column of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) kind: Type,
}

/// Who asks, and of what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) data: &'a Data,
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// What a query is asked of: columns by name, and rows.
struct Scope<'a> {
    columns: Vec<(String, Type)>,
    rows: Vec<Vec<Value>>,
    /// What the source is called.
    name: String,
    table: Option<&'a Table>,
    /// What running it comes to, if the user may not.
    denied: Option<SqlError>,
}

const SEGMENT: u64 = 16 << 20;

/// The columns that a query will have: what PostgreSQL finds out before it runs it.
pub(super) fn describe(asked: Asked<'_>, select: &Select) -> Result<Vec<Field>, SqlError> {
    let scope = scope(asked, select.from.as_ref())?;
    let mut fields = Vec::new();
    for column in &select.columns {
        if column.expression == Expression::Star {
            if select.from.is_none() {
                let message = "SELECT * with no tables specified is not valid";
                return Err(SqlError::new("42601", message));
            }
            fields.extend(scope.columns.iter().map(|(name, kind)| Field {
                name: name.clone(),
                kind: *kind,
            }));
            continue;
        }
        let kind = kind(&scope, &column.expression)?;
        let name = column
            .name
            .clone()
            .unwrap_or_else(|| name(&column.expression));
        fields.push(Field { name, kind });
    }
    Ok(fields)
}

/// Its rows.
pub(super) fn run(asked: Asked<'_>, select: &Select) -> Result<Vec<Vec<Value>>, SqlError> {
    let scope = scope(asked, select.from.as_ref())?;
    describe(asked, select)?;
    if let Some(denied) = scope.denied {
        return Err(denied);
    }
    let aggregated = select
        .columns
        .iter()
        .any(|column| is_aggregate(&column.expression));
    let rows: Vec<&[Value]> = match (aggregated, select.from.is_some()) {
        (false, true) => scope.rows.iter().map(Vec::as_slice).collect(),
        _ => vec![&[]],
    };
    let row = |row: &[Value]| {
        let mut values = Vec::new();
        for column in &select.columns {
            match &column.expression {
                Expression::Star => values.extend(row.iter().cloned()),
                expression => values.push(value(asked, &scope, row, expression)?),
            }
        }
        Ok(values)
    };
    rows.into_iter().map(row).collect()
}

fn scope<'a>(asked: Asked<'a>, from: Option<&From>) -> Result<Scope<'a>, SqlError> {
    let mut scope = Scope {
        columns: Vec::new(),
        rows: Vec::new(),
        name: String::new(),
        table: None,
        denied: None,
    };
    let Some(from) = from else {
        return Ok(scope);
    };
    scope.name.clone_from(&from.alias);
    if from.called {
        (scope.columns, scope.rows) = record(asked.data, from)?;
        if from.name == "pg_last_committed_xact" && !asked.data.commit_timestamps {
            scope.denied = Some(SqlError::new(
                "55000",
                "could not get commit timestamp data",
            ));
        }
        return Ok(scope);
    }
    let schema = from.schema.as_deref().unwrap_or("public");
    let tables = asked.data.databases.get(asked.database);
    let Some(table) = tables.and_then(|tables| tables.get(&(schema.to_owned(), from.name.clone())))
    else {
        let name = match &from.schema {
            Some(schema) => format!("{schema}.{}", from.name),
            None => from.name.clone(),
        };
        let message = format!("relation \"{name}\" does not exist");
        return Err(SqlError::new("42P01", message).at(from.position));
    };
    let superuser = asked
        .data
        .roles
        .get(asked.user)
        .is_some_and(|role| role.superuser);
    if !superuser && !table.readers.contains(asked.user) {
        let message = format!("permission denied for table {}", from.name);
        scope.denied = Some(SqlError::new("42501", message));
    }
    scope.columns = vec![(table.column.clone(), Type::Timestamp)];
    scope.rows = table
        .rows
        .iter()
        .map(|row| vec![Value::Timestamp(*row)])
        .collect();
    scope.table = Some(table);
    Ok(scope)
}

type Record = (Vec<(String, Type)>, Vec<Vec<Value>>);

/// The functions that give a record.
fn record(data: &Data, from: &From) -> Result<Record, SqlError> {
    let timeline = Value::Int(data.timeline.into());
    let columns: Vec<(&str, Type, Value)> = match from.name.as_str() {
        "pg_control_system" => vec![
            ("pg_control_version", Type::Int4, Value::Int(1300)),
            ("catalog_version_no", Type::Int4, Value::Int(202_209_061)),
            // It is unsigned in PostgreSQL and signed in its SQL.
            (
                "system_identifier",
                Type::Int8,
                Value::Int(data.system_id.cast_signed()),
            ),
        ],
        "pg_control_checkpoint" => vec![
            ("checkpoint_lsn", Type::Lsn, Value::Lsn(lsn(data))),
            ("redo_lsn", Type::Lsn, Value::Lsn(lsn(data))),
            ("timeline_id", Type::Int4, timeline),
        ],
        "pg_last_committed_xact" => {
            let at = data.last_commit;
            let xid = at.map_or(Value::Null, |_| {
                Value::Int(733 + i64::try_from(data.rows()).unwrap_or_default())
            });
            let moment = at.map_or(Value::Null, Value::Timestamp);
            let origin = at.map_or(Value::Null, |_| Value::Int(0));
            vec![
                ("xid", Type::Xid, xid),
                ("timestamp", Type::Timestamp, moment),
                ("roident", Type::Oid, origin),
            ]
        }
        "pg_is_in_recovery" => vec![(
            "pg_is_in_recovery",
            Type::Bool,
            Value::Bool(data.in_recovery),
        )],
        other => {
            let message = format!("function {other}() does not exist");
            return Err(SqlError::new("42883", message).at(from.position));
        }
    };
    let row = columns.iter().map(|(_, _, value)| value.clone()).collect();
    let columns = columns
        .into_iter()
        .map(|(name, kind, _)| (name.to_owned(), kind))
        .collect();
    Ok((columns, vec![row]))
}

fn lsn(data: &Data) -> u64 {
    u64::from(data.segment) * SEGMENT + 0x28
}

fn name(expression: &Expression) -> String {
    match expression {
        Expression::Name(name, _) | Expression::Call(name, ..) => name.clone(),
        Expression::Cast(inner, kind, _) => match name(inner) {
            unnamed if unnamed == "?column?" => kind.clone(),
            name => name,
        },
        Expression::Number(_) | Expression::Text(_) | Expression::Star => "?column?".to_owned(),
    }
}

fn is_aggregate(expression: &Expression) -> bool {
    match expression {
        Expression::Call(name, arguments, _) => {
            matches!(name.as_str(), "count" | "max" | "min") || arguments.iter().any(is_aggregate)
        }
        Expression::Cast(inner, ..) => is_aggregate(inner),
        _ => false,
    }
}

/// The type of an expression, or why it is none.
fn kind(scope: &Scope<'_>, expression: &Expression) -> Result<Type, SqlError> {
    match expression {
        Expression::Number(_) => Ok(Type::Int4),
        Expression::Text(_) => Ok(Type::Text),
        Expression::Star => Err(SqlError::new(
            "0A000",
            "the sandbox's PostgreSQL does not play `*` here",
        )),
        Expression::Name(name, position) => column(scope, name, *position).map(|(_, kind)| kind),
        Expression::Cast(inner, to, position) => {
            kind(scope, inner)?;
            match to.as_str() {
                "text" => Ok(Type::Text),
                "int8" | "bigint" => Ok(Type::Int8),
                "int4" | "int" | "integer" => Ok(Type::Int4),
                other => Err(
                    SqlError::new("42704", format!("type \"{other}\" does not exist"))
                        .at(*position),
                ),
            }
        }
        Expression::Call(function, arguments, position) => {
            let star = matches!(arguments.as_slice(), [Expression::Star]);
            if function == "count" && star {
                return Ok(Type::Int8);
            }
            let of = arguments.iter().map(|argument| kind(scope, argument));
            let of = of.collect::<Result<Vec<_>, _>>()?;
            match (function.as_str(), of.as_slice()) {
                ("count", [_]) => Ok(Type::Int8),
                ("max" | "min", [kind]) if *kind != Type::Bool => Ok(*kind),
                ("pg_xact_commit_timestamp", [Type::Xid]) | ("now", []) => Ok(Type::Timestamp),
                ("pg_is_in_recovery", []) => Ok(Type::Bool),
                ("pg_current_wal_lsn", []) => Ok(Type::Lsn),
                ("pg_walfile_name", [Type::Lsn]) | ("version" | "current_database", []) => {
                    Ok(Type::Text)
                }
                ("substr" | "substring", [Type::Text, Type::Int4, Type::Int4])
                | ("left", [Type::Text, Type::Int4]) => Ok(Type::Text),
                (_, of) => {
                    let of = of
                        .iter()
                        .map(|kind| kind.sql())
                        .collect::<Vec<_>>()
                        .join(", ");
                    let message = format!("function {function}({of}) does not exist");
                    Err(SqlError::new("42883", message).at(*position))
                }
            }
        }
    }
}

fn column(
    scope: &Scope<'_>,
    name: &str,
    position: usize,
) -> Result<(Option<usize>, Type), SqlError> {
    if let Some(at) = scope.columns.iter().position(|(column, _)| column == name) {
        return Ok((Some(at), scope.columns[at].1));
    }
    // A column that every table has.
    if name == "xmin" && scope.table.is_some() {
        return Ok((None, Type::Xid));
    }
    Err(SqlError::new("42703", format!("column \"{name}\" does not exist")).at(position))
}

fn value(
    asked: Asked<'_>,
    scope: &Scope<'_>,
    row: &[Value],
    expression: &Expression,
) -> Result<Value, SqlError> {
    match expression {
        Expression::Number(number) => Ok(Value::Int(*number)),
        Expression::Text(text) => Ok(Value::Text(text.clone())),
        Expression::Star => Ok(Value::Null),
        Expression::Name(name, position) => match column(scope, name, *position)?.0 {
            Some(at) => row.get(at).cloned().ok_or_else(|| {
                let message = format!("column \"{}.{name}\" must appear in the GROUP BY clause or be used in an aggregate function", scope.name);
                SqlError::new("42803", message).at(*position)
            }),
            None => Ok(Value::Int(733)),
        },
        Expression::Cast(inner, to, _) => {
            let value = value(asked, scope, row, inner)?;
            match (to.as_str(), &value) {
                (_, Value::Null) => Ok(Value::Null),
                ("text", _) => Ok(Value::Text(text(&value))),
                (_, Value::Int(_)) => Ok(value),
                (to, _) => {
                    let message = format!("invalid input syntax for type {to}: \"{}\"", text(&value));
                    Err(SqlError::new("22P02", message))
                }
            }
        }
        Expression::Call(function, arguments, _) => call(asked, scope, row, function, arguments),
    }
}

fn call(
    asked: Asked<'_>,
    scope: &Scope<'_>,
    row: &[Value],
    function: &str,
    arguments: &[Expression],
) -> Result<Value, SqlError> {
    if matches!(function, "count" | "max" | "min") {
        let argument = arguments.first().unwrap_or(&Expression::Star);
        if *argument == Expression::Star {
            return Ok(Value::Int(
                i64::try_from(scope.rows.len()).unwrap_or(i64::MAX),
            ));
        }
        let all = scope
            .rows
            .iter()
            .map(|row| value(asked, scope, row, argument));
        let all: Vec<Value> = all.collect::<Result<_, _>>()?;
        let all = all.into_iter().filter(|value| *value != Value::Null);
        return Ok(match function {
            "count" => Value::Int(i64::try_from(all.count()).unwrap_or(i64::MAX)),
            "max" => all.max_by(order).unwrap_or(Value::Null),
            _ => all.min_by(order).unwrap_or(Value::Null),
        });
    }
    let data = asked.data;
    let arguments = match function {
        // Of the row, not of the number that stands for its transaction.
        "pg_xact_commit_timestamp" => Vec::new(),
        _ => arguments
            .iter()
            .map(|argument| value(asked, scope, row, argument))
            .collect::<Result<Vec<_>, _>>()?,
    };
    Ok(match (function, arguments.as_slice()) {
        ("pg_xact_commit_timestamp", _) if !data.commit_timestamps => {
            return Err(SqlError::new(
                "55000",
                "could not get commit timestamp data",
            ));
        }
        ("pg_xact_commit_timestamp", _) => row.first().cloned().unwrap_or(Value::Null),
        ("now", _) => Value::Timestamp(Timestamp::now()),
        ("version", _) => Value::Text("PostgreSQL 15.18 (the sandbox's)".to_owned()),
        ("current_database", _) => Value::Text(asked.database.to_owned()),
        ("pg_is_in_recovery", _) => Value::Bool(data.in_recovery),
        ("pg_current_wal_lsn" | "pg_walfile_name", _) if data.in_recovery => {
            return Err(SqlError::new("55000", "recovery is in progress"));
        }
        ("pg_current_wal_lsn", _) => Value::Lsn(lsn(data)),
        ("pg_walfile_name", [Value::Lsn(lsn)]) => {
            let segment = lsn / SEGMENT;
            Value::Text(format!(
                "{:08X}{:08X}{:08X}",
                data.timeline,
                segment >> 8,
                segment & 0xFF
            ))
        }
        ("substr" | "substring", [Value::Text(text), Value::Int(from), Value::Int(length)]) => {
            let skip = usize::try_from(from - 1).unwrap_or_default();
            let length = usize::try_from(*length).unwrap_or_default();
            Value::Text(text.chars().skip(skip).take(length).collect())
        }
        ("left", [Value::Text(text), Value::Int(length)]) => Value::Text(
            text.chars()
                .take(usize::try_from(*length).unwrap_or_default())
                .collect(),
        ),
        _ => Value::Null,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::super::sql::parse;
    use super::*;

    fn data() -> Data {
        let mut data = Data::initdb();
        (data.system_id, data.timeline, data.segment) = (7_711_229_776_877_137_931, 3, 0x1_02);
        let rows = ["2026-11-23T05:10:27.67612Z", "2026-11-23T05:10:28Z"];
        let table = Table {
            column: "ts".into(),
            rows: rows.iter().map(|row| row.parse().unwrap()).collect(),
            readers: ["app".to_owned()].into(),
        };
        let tables = data.databases.get_mut("postgres").unwrap();
        tables.insert(("public".into(), "hb".into()), table);
        tables.insert(
            ("public".into(), "none".into()),
            Table {
                column: "ts".into(),
                ..Table::default()
            },
        );
        data
    }

    fn ask(data: &Data, user: &str, query: &str) -> Result<String, String> {
        let asked = Asked {
            data,
            database: "postgres",
            user,
        };
        let shown = |error: SqlError| match error.position {
            Some(at) => format!("{} {} at {at}", error.code, error.message),
            None => format!("{} {}", error.code, error.message),
        };
        let select = parse(query).map_err(shown)?.ok_or("nothing")?;
        let rows = run(asked, &select).map_err(shown)?;
        let row = |row: &Vec<Value>| row.iter().map(text).collect::<Vec<_>>().join("|");
        Ok(rows.iter().map(row).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_a_data_proof_asks_is_answered_from_the_data() {
        let data = data();
        for (query, answer) in [
            (
                "select system_identifier from pg_control_system()",
                "7711229776877137931",
            ),
            ("SELECT timeline_id FROM pg_control_checkpoint();", "3"),
            ("select pg_is_in_recovery()", "f"),
            ("select count(*) from hb", "2"),
            (
                "select count(*), max(ts), min(ts)::text from public.hb",
                "2|2026-11-23 05:10:28+00|2026-11-23 05:10:27.67612+00",
            ),
            ("select max(ts) from none", ""),
            (
                "select ts from \"hb\" h",
                "2026-11-23 05:10:27.67612+00 2026-11-23 05:10:28+00",
            ),
            (
                "select max(pg_xact_commit_timestamp(xmin)) from hb",
                "2026-11-23 05:10:28+00",
            ),
            ("select pg_current_wal_lsn()", "1/2000028"),
            (
                "select substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)",
                "00000003",
            ),
            (
                "select system_identifier::text as id from pg_control_system()",
                "7711229776877137931",
            ),
            ("select timestamp from pg_last_committed_xact()", ""),
            ("select 1", "1"),
        ] {
            assert_eq!(
                ask(&data, "postgres", query).as_deref(),
                Ok(answer),
                "{query}"
            );
        }
    }

    #[test]
    fn what_is_wrong_gets_the_words_of_postgresql() {
        let data = data();
        for (query, error) in [
            ("selec 1", "42601 syntax error at or near \"selec\" at 1"),
            (
                "select count(*) frm hb",
                "42601 syntax error at or near \"hb\" at 21",
            ),
            ("select count(*", "42601 syntax error at end of input at 15"),
            (
                "select count(*) from nosuch",
                "42P01 relation \"nosuch\" does not exist at 22",
            ),
            (
                "select count(*) from Hb2",
                "42P01 relation \"hb2\" does not exist at 22",
            ),
            (
                "select count(*) from \"Hb\"",
                "42P01 relation \"Hb\" does not exist at 22",
            ),
            (
                "select count(*) from app.hb",
                "42P01 relation \"app.hb\" does not exist at 22",
            ),
            (
                "select max(nocol) from hb",
                "42703 column \"nocol\" does not exist at 12",
            ),
            (
                "select nofunc()",
                "42883 function nofunc() does not exist at 8",
            ),
            (
                "select * from nofunc()",
                "42883 function nofunc() does not exist at 15",
            ),
            (
                "insert into hb values (now())",
                "0A000 the sandbox's PostgreSQL does not play `insert` at 1",
            ),
            (
                "select count(*) from hb where ts > 1",
                "0A000 the sandbox's PostgreSQL does not play `>` at 34",
            ),
        ] {
            assert_eq!(
                ask(&data, "postgres", query),
                Err(error.to_owned()),
                "{query}"
            );
        }
        let denied = Err("42501 permission denied for table hb".to_owned());
        assert_eq!(ask(&data, "plain", "select count(*) from hb"), denied);
        assert_eq!(
            ask(&data, "app", "select count(*) from hb").as_deref(),
            Ok("2")
        );
    }

    #[test]
    fn a_database_in_recovery_and_one_without_commit_timestamps_say_so() {
        let mut data = data();
        data.in_recovery = true;
        data.commit_timestamps = false;
        assert_eq!(
            ask(&data, "plain", "select pg_is_in_recovery()").as_deref(),
            Ok("t")
        );
        let error = ask(&data, "plain", "select pg_current_wal_lsn()");
        assert_eq!(error, Err("55000 recovery is in progress".to_owned()));
        let error = ask(
            &data,
            "plain",
            "select xid, timestamp from pg_last_committed_xact()",
        );
        assert_eq!(
            error,
            Err("55000 could not get commit timestamp data".to_owned())
        );
    }
}
