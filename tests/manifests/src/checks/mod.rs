//! One check a file. Each is pure: a tree in, findings out.

pub mod data;
pub mod database;
pub mod disks;
pub mod files;
pub mod gates;
pub mod health;
pub mod kinds;
pub mod names;
pub mod order;
pub mod references;
pub mod releases;
pub mod secrets;
pub mod shape;
pub mod variables;
pub mod web;

use jobs::spec::ClusterSpec;

use crate::{Finding, Tree};

/// Every check, against the spec of the cluster that the tree is for.
pub fn all(tree: &Tree, spec: &ClusterSpec) -> Vec<Finding> {
    let mut findings = files::check(tree);
    findings.extend(kinds::check(tree));
    findings.extend(shape::check(tree));
    findings.extend(names::check(tree));
    findings.extend(references::check(tree));
    findings.extend(order::check(tree));
    findings.extend(health::check(tree));
    findings.extend(variables::check(tree));
    findings.extend(releases::check(tree));
    findings.extend(gates::check(tree));
    findings.extend(data::check(tree));
    findings.extend(database::check(tree));
    findings.extend(disks::check(tree, spec));
    findings.extend(secrets::check(tree));
    findings.extend(web::check(tree, spec));
    findings
}
