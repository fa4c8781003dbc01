//! `rekindle release`: another image of an application, or the former one.

use jobs::message::{Image, Job, Release as Payload};
use jobs::spec::ClusterSpec;

use super::{single, switch};
use crate::cli::Release;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::out::Out;

pub(crate) async fn run(args: &Release, out: &mut Out) -> Result<ExitCode, CliError> {
    single::of_payload(&args.single, out, |spec| payload(args, spec)).await
}

fn payload(args: &Release, spec: &ClusterSpec) -> Result<Job, CliError> {
    let application = match (&args.application, spec.applications.as_slice()) {
        (Some(name), _) => switch::application(spec, name)?,
        (None, [only]) => only,
        (None, all) => {
            let names: Vec<&str> = all.iter().map(|a| a.name.as_str()).collect();
            let message = "which application is released? the spec has none";
            return Err(match names.is_empty() {
                true => CliError::usage(message),
                false => CliError::usage("which application is released?")
                    .hint(format!("say --application, one of {}", names.join(", "))),
            });
        }
    };
    let image = match &args.tag {
        Some(tag) => Image::Tag(tag.clone()),
        None => Image::Former,
    };
    Ok(Job::Release(Payload {
        application: application.name.clone(),
        image,
    }))
}
