//! `rekindle switch`: the values of a release, changed by its switch.

use jobs::ids::ObjectName;
use jobs::message::{Change, Job, Switch as Payload};
use jobs::spec::{Application, ClusterSpec};

use super::single;
use crate::cli::Switch;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;

pub(crate) async fn run(args: &Switch, out: &mut Out) -> Result<ExitCode, CliError> {
    single::of_payload(&args.single, out, |spec| payload(args, spec)).await
}

fn payload(args: &Switch, spec: &ClusterSpec) -> Result<Job, CliError> {
    let change = if let Some(name) = &args.freeze {
        let application = application(spec, name)?.name.clone();
        Change::Freeze { application }
    } else if let Some(name) = &args.thaw {
        let application = application(spec, name)?.name.clone();
        Change::Thaw { application }
    } else if let Some(given) = &args.values {
        Change::Values {
            switch: given.switch.clone(),
            values: given.values.clone(),
            release: args.release.clone(),
        }
    } else {
        return Err(CliError::usage("give one of --freeze, --thaw and --values"));
    };
    Ok(Job::Switch(Payload { change }))
}

/// An application of the spec.
pub(super) fn application<'a>(
    spec: &'a ClusterSpec,
    name: &ObjectName,
) -> Result<&'a Application, CliError> {
    spec.application(name.as_str()).ok_or_else(|| {
        let names: Vec<&str> = spec.applications.iter().map(|a| a.name.as_str()).collect();
        let there = match names.is_empty() {
            true => "it has no `applications`".to_owned(),
            false => format!("there are {}", names.join(", ")),
        };
        CliError::usage(format!("the spec has no application `{name}`")).hint(there)
    })
}
