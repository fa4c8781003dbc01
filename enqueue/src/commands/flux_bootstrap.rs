//! `rekindle flux-bootstrap` and `rekindle wait-certificates`: what Flux brings to a cluster.

use jobs::message::{Job, WaitCertificates as Wait};
use jobs::spec::ClusterSpec;

use super::{begin, single};
use crate::cli::{FluxBootstrap, WaitCertificates};
use crate::error::CliError;
use crate::exit::ExitCode;
use crate::flux;
use crate::out::Out;

pub(crate) async fn run(args: &FluxBootstrap, out: &mut Out) -> Result<ExitCode, CliError> {
    let single = &args.single;
    let store = single.begin.follow.store.connect().await?;
    let (spec, given) = single::spec(&store, single).await?;
    if spec.spec.flux.is_none() {
        return Err(CliError::usage(
            "the spec has no `flux` section: there is nothing to hand the cluster to",
        ));
    }
    let packed = flux::pack(args.flux.folder.as_deref(), &spec.spec)?;
    let plan = single::alone(vec![Job::FluxBootstrap])?;
    let mut request = single::request("flux-bootstrap", single, spec, given, plan)?;
    request.flux = packed;
    begin::run(&store, &request, &single.begin, out).await
}

/// The job that waits for certificates.
pub(super) fn certificates(args: &WaitCertificates, spec: &ClusterSpec) -> Result<Job, CliError> {
    if args.certificates.is_empty() && spec.certificates.is_empty() {
        return Err(
            CliError::usage("no certificate is named, and the spec has no `certificates`")
                .hint("name some as NAMESPACE/NAME"),
        );
    }
    Ok(Job::WaitCertificates(Wait {
        certificates: args.certificates.clone(),
    }))
}
