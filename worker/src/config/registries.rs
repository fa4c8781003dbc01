//! The registries that container images are mirrored from.

use std::path::PathBuf;

use clap::Args;

use super::SettingError;
use crate::registries::{Mirror, Registries};

/// The registries that container images are mirrored from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Registries")]
pub struct RegistryArgs {
    /// File with users and passwords of registries: docker's config.json. Programs that it names are not run
    #[arg(
        long,
        env = "REKINDLE_REGISTRY_AUTH_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    registry_auth_file: Option<PathBuf>,
    /// Certificate authorities to trust for registries instead of the host's, as PEM
    #[arg(
        long,
        env = "REKINDLE_REGISTRY_CA_FILE",
        value_name = "FILE",
        hide_short_help = true
    )]
    registry_ca_file: Option<PathBuf>,
    /// Where a registry's images are read instead, `registry.k8s.io=oci://HOST/PREFIX`; may be repeated, in the
    /// environment with commas. Their names stay what they are
    #[arg(
        long = "registry-mirror",
        env = "REKINDLE_REGISTRY_MIRRORS",
        value_name = "HOST=URL",
        value_delimiter = ',',
        hide_short_help = true
    )]
    registry_mirrors: Vec<String>,
}

impl RegistryArgs {
    pub(super) fn registries(&self) -> Result<Registries, SettingError> {
        let there =
            |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
        let mut registries = Registries {
            auth_file: there(&self.registry_auth_file),
            ca_file: there(&self.registry_ca_file),
            ..Registries::default()
        };
        for text in self.registry_mirrors.iter().filter(|text| !text.is_empty()) {
            let mirror: Mirror = text.parse().map_err(|reason| {
                SettingError::new(format!(
                    "REKINDLE_REGISTRY_MIRRORS (--registry-mirror), `{text}`: {reason}"
                ))
            })?;
            if let Some(twice) = registries.mirrors.insert(mirror.registry, mirror.url) {
                let reason =
                    format!("REKINDLE_REGISTRY_MIRRORS names a registry twice, once as `{twice}`");
                return Err(SettingError::new(reason));
            }
        }
        Ok(registries)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        registries: RegistryArgs,
    }

    #[test]
    fn mirrors_are_read_and_nonsense_names_the_setting() {
        let read = |mirrors: &[&str]| {
            let flags = mirrors
                .iter()
                .map(|mirror| format!("--registry-mirror={mirror}"));
            let line = Line::try_parse_from(["x".to_owned()].into_iter().chain(flags));
            line.expect("good flags").registries.registries()
        };
        let good = read(&["quay.io=oci://r.example/quay,docker.io=oci+http://127.0.0.1:5000/"])
            .expect("fine");
        assert_eq!(good.mirrors["quay.io"], "oci://r.example/quay");
        assert_eq!(good.mirrors["docker.io"], "oci+http://127.0.0.1:5000");
        for bad in [
            &["quay.io"][..],
            &["quay.io=https://r.example"],
            &["quay.io=oci+http://r.example/quay"],
            &["quay.io=oci://u:hunter@r.example"],
            &["=oci://r.example"],
            &["quay.io=oci://a.example", "quay.io=oci://b.example"],
        ] {
            let error = read(bad).expect_err(bad[0]).to_string();
            assert!(error.contains("REKINDLE_REGISTRY_MIRRORS"), "{error}");
        }
    }
}
