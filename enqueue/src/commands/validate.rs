//! `rekindle validate`: every problem of a spec, a plan and a list of images at once.

use std::path::Path;

use jobs::spec::Problem;
use serde::Serialize;
use serde_json::json;

use crate::cli::Validate;
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::files;
use crate::out::Out;
use crate::render;

/// A problem and the file it stands in.
#[derive(Debug, Serialize)]
struct Found {
    file: String,
    #[serde(flatten)]
    problem: Problem,
}

pub(crate) fn run(args: &Validate, out: &mut Out) -> Result<ExitCode, CliError> {
    let mut found = Vec::new();
    let mut fine = Vec::new();
    let spec = match &args.spec {
        Some(path) => collect(files::spec(path), &mut found)?.inspect(|spec| {
            let nodes = spec.spec.nodes().len();
            fine.push(format!(
                "{}: cluster {}, {nodes} nodes",
                path.display(),
                spec.spec.cluster
            ));
        }),
        None => None,
    };
    let plan = args.plan.as_deref();
    match (&spec, plan) {
        // Without --plan, the built-in plan has to fit the spec.
        (Some(spec), path) => {
            let file = path.map_or("the built-in plan".into(), |p| p.display().to_string());
            if let Some(plan) = collect(files::plan(path, &spec.spec), &mut found)? {
                fine.push(format!("{file}: {}", render::jobs(plan.jobs().len())));
            }
        }
        (None, Some(path)) => form_only(path, args.spec.is_some(), &mut found, &mut fine)?,
        (None, None) => {}
    }
    if let (Some(spec), Some(path)) = (&spec, &args.images) {
        let fits = files::images(path).and_then(|text| files::fits(path, &text, &spec.spec));
        if let Some(images) = collect(fits, &mut found)? {
            let version = spec
                .spec
                .kubernetes
                .as_ref()
                .map_or("", |kubernetes| &kubernetes.version);
            fine.push(format!(
                "{}: {images} images for Kubernetes {version}",
                path.display()
            ));
        }
    }
    let valid = found.is_empty();
    out.show(&json!({ "valid": valid, "problems": found }), || {
        let problems = found.iter().map(|f| format!("{}: {}", f.file, f.problem));
        let lines: Vec<String> = fine
            .iter()
            .map(|line| format!("{line}: fine"))
            .chain(problems)
            .collect();
        lines.join("\n")
    });
    Ok(if valid {
        ExitCode::Done
    } else {
        ExitCode::Usage
    })
}

/// A plan without a (good) spec: names of nodes and groups cannot be checked.
fn form_only(
    path: &Path,
    spec_is_bad: bool,
    found: &mut Vec<Found>,
    fine: &mut Vec<String>,
) -> Result<(), CliError> {
    if collect(files::plan_file(path), found)?.is_some() {
        let why = if spec_is_bad {
            "once the spec is fine, its"
        } else {
            "with --spec, its"
        };
        fine.push(format!(
            "{}: readable; {why} names are checked too",
            path.display()
        ));
    }
    Ok(())
}

/// Sorts a file's problems from other errors.
fn collect<T>(read: Result<T, CliError>, found: &mut Vec<Found>) -> Result<Option<T>, CliError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(CliError::Problems { file, problems }) => {
            found.extend(problems.into_iter().map(|problem| Found {
                file: file.clone(),
                problem,
            }));
            Ok(None)
        }
        Err(other) => Err(other),
    }
}
