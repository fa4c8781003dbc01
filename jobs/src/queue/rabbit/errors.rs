//! From lapin's errors to ours. Here it is decided which trouble passes by itself.

use std::time::Duration;

use lapin::ErrorKind;

use crate::queue::QueueError;

/// An error of any operation but a declaration.
pub(super) fn of(doing: &'static str, error: &lapin::Error) -> QueueError {
    let reason = error.to_string();
    let ErrorKind::ProtocolError(said) = error.kind() else {
        return QueueError::Unreachable { doing, reason };
    };
    // 530 is also said while a virtual host is down and when connections are scarce: both pass.
    let passes = reason.contains("limit") || reason.contains("down");
    match said.get_id() {
        403 => QueueError::Refused { doing, reason },
        530 if !passes => QueueError::Refused { doing, reason },
        _ => QueueError::Unreachable { doing, reason },
    }
}

/// An error of declaring `queue`.
pub(super) fn of_declare(queue: &str, error: &lapin::Error) -> QueueError {
    match error.kind() {
        // 406: other properties. 405: somebody's exclusive queue.
        ErrorKind::ProtocolError(said) if matches!(said.get_id(), 405 | 406) => {
            QueueError::Different {
                queue: queue.to_owned(),
                reason: said.get_message().to_string(),
            }
        }
        _ => of("declare", error),
    }
}

pub(super) fn no_answer(doing: &'static str, after: Duration) -> QueueError {
    QueueError::Unreachable {
        doing,
        reason: format!("no answer after {after:?}"),
    }
}

pub(super) fn gone(doing: &'static str) -> QueueError {
    QueueError::Unreachable {
        doing,
        reason: "the connection is gone".to_owned(),
    }
}
