//! A file that nobody lists, or a folder that nobody builds, looks as if it were applied.

use crate::{Finding, Tree};

/// Names what stands in the cluster's folders and is applied by nothing.
pub fn check(tree: &Tree) -> Vec<Finding> {
    let unused = tree.unused.iter();
    unused
        .map(|path| Finding::new(path, "nothing applies it"))
        .collect()
}
