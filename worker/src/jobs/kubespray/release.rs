//! The Kubespray in the image is the one of the spec. Somebody has put the image into the bucket, and its digest says
//! nothing of what is in it; so the run looks before it goes to any node.

use jobs::spec::Kubernetes;

use crate::jobs::ansible::Files;
use crate::jobs::ansible::inputs::{self, INPUTS};

const CHECK: &str = "check-kubespray.yml";
const PLAYBOOK: &str = include_str!("check-kubespray.yml");

/// The command that plays a playbook of Kubespray, after a look at whose it is. One start of Ansible plays both, and
/// ends with the first that fails.
pub(in crate::jobs) fn playbook(kubernetes: &Kubernetes, path: &str) -> Vec<String> {
    let mut command = inputs::playbook(path);
    let check = [
        "--extra-vars".to_owned(),
        format!("rekindle_kubespray={}", kubernetes.kubespray),
        format!("{INPUTS}/{CHECK}"),
    ];
    let last = command.len() - 1;
    command.splice(last..last, check);
    command
}

/// What the run is given for it.
pub(super) fn files() -> Files {
    Files::from([(CHECK, PLAYBOOK.into())])
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::fs;

    use jobs::spec::ClusterSpec;

    use super::*;
    use crate::jobs::ansible::stage::{SPEC, Stage, machines};
    use crate::jobs::kubespray::inventory;

    /// Plays something with an image whose `galaxy.yml` is this; whether it was played, and what the job would say.
    fn play(galaxy: Option<&str>) -> (bool, Result<(), String>) {
        let spec = ClusterSpec::parse(SPEC).unwrap();
        let machines = machines(&spec);
        let kubernetes = spec.kubernetes.unwrap();
        let stage = Stage::new(&inventory::render(&kubernetes, &machines, None).unwrap());
        let home = stage.home.path();
        if let Some(text) = galaxy {
            fs::write(home.join("galaxy.yml"), text).unwrap();
        }
        let check = home.join("in").join(CHECK);
        let text = fs::read_to_string(&check).unwrap();
        let here = text.replace("/kubespray/", &stage.here("HOME"));
        assert_ne!(text, here);
        fs::write(&check, here).unwrap();
        let book = "[{hosts: small-app-1, connection: local, gather_facts: false, tasks: [
            {ansible.builtin.command: touch HOME/played}]}]";
        let ran = stage.play_by(&playbook(&kubernetes, "cluster.yml"), book, &[]);
        let played = home.join("played").exists();
        (played, ran.verdict(&["small-app-1"]))
    }

    #[test]
    fn heavy_only_the_kubespray_of_the_spec_is_played() {
        let galaxy = "namespace: kubernetes_sigs\nname: kubespray\nversion: 2.29.1\n";
        assert_eq!(play(Some(galaxy)), (true, Ok(())));
        for (galaxy, has) in [
            (Some("version: 2.30.0\n"), "has 2.30.0"),
            // Not a text, and not the same one.
            (Some("version: 2.3\n"), "has 2.3"),
            (Some("name: kubespray\n"), "does not tell its version"),
            (None, "does not tell its version"),
        ] {
            let (played, verdict) = play(galaxy);
            let why = verdict.unwrap_err();
            assert!(
                !played
                    && why.contains("`kubernetes.kubespray` of the spec is 2.29.1")
                    && why.contains(has),
                "{galaxy:?}: {why}"
            );
        }
    }

    #[test]
    fn the_look_comes_before_the_playbook_in_one_command() {
        let kubernetes = ClusterSpec::parse(SPEC).unwrap().kubernetes.unwrap();
        let line = playbook(&kubernetes, "remove-node.yml").join(" ");
        let end = "--extra-vars @/rekindle/in/extra_vars.json --extra-vars rekindle_kubespray=2.29.1 \
                   /rekindle/in/check-kubespray.yml remove-node.yml";
        assert!(line.ends_with(end), "{line}");
    }
}
