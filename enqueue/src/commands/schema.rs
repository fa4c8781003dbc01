//! `rekindle schema`: the JSON schema of cluster.yaml, for editors.

use jobs::spec::ClusterSpec;

use crate::exit::ExitCode;
use crate::out::Out;

pub(crate) fn run(out: &mut Out) -> ExitCode {
    let schema =
        serde_json::to_string_pretty(&ClusterSpec::schema()).expect("a schema is plain data");
    out.raw(&schema);
    ExitCode::Done
}
