//! `fetch`

use std::io::{self, Read};

use serde::Deserialize;

use super::{CommandError, size, usage};
use crate::cli::Fetch;
use crate::fetch::{self, Wanted};
use crate::image::Network;
use crate::out::Out;

/// Longer orders are not read.
const LONGEST: u64 = 16 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    files: Vec<Wanted>,
}

pub(super) fn fetch(args: &Fetch, out: &mut Out) -> Result<(), CommandError> {
    let mut text = Vec::new();
    let read = io::stdin().take(LONGEST + 1).read_to_end(&mut text);
    read.map_err(|error| usage(&format!("failed to read the order on stdin: {error}")))?;
    if text.len() as u64 > LONGEST {
        return Err(usage("the order on stdin is too long"));
    }
    // The error of the parser may repeat what it stumbled over.
    let order: Order = serde_json::from_slice(&text).map_err(|error| {
        usage(&format!(
            "line {} of the order on stdin cannot be read",
            error.line()
        ))
    })?;
    for wanted in &order.files {
        wanted.check().map_err(|error| usage(&error.to_string()))?;
    }
    let network = Network {
        tries: args.tries,
        ca_file: args.ca_file.clone(),
        auth_file: None,
    };
    let done = fetch::fetch(&args.into, &order.files, &network)?;
    out.show(&done, || {
        format!(
            "fetched {} files, {}; {} were here",
            done.fetched,
            size(done.bytes),
            done.there
        )
    });
    Ok(())
}
