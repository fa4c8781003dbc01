//! The inventory, given to a real Kubespray: the checkout in KUBESPRAY_DIR. It is no part of this
//! repository and cannot be had everywhere, so these tests are built on request only; docs/operations.md
//! says how.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use jobs::spec::versions::RELEASES;
use jobs::spec::{ClusterSpec, Role};
use serde_json::{Value, json};

use super::inventory;
use crate::jobs::ansible::inputs;
use crate::jobs::ansible::stage::{SPEC, Stage, machines, programs};

/// A checkout, and the Ansible that it wants.
struct Kubespray {
    folder: PathBuf,
    version: String,
    programs: PathBuf,
}

impl Kubespray {
    fn given() -> Self {
        let folder = std::env::var_os("KUBESPRAY_DIR").expect("KUBESPRAY_DIR: a checkout");
        let folder = PathBuf::from(folder).canonicalize().unwrap();
        let galaxy = std::fs::read_to_string(folder.join("galaxy.yml")).unwrap();
        let version = galaxy
            .lines()
            .find_map(|line| line.strip_prefix("version: "));
        let wanted = std::fs::read_to_string(folder.join("requirements.txt")).unwrap();
        let wanted = wanted
            .lines()
            .find(|line| line.starts_with("ansible=="))
            .unwrap();
        // What deploy/rootfs/build would put beside it.
        let lists = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/rootfs");
        let lists = std::fs::read_dir(lists)
            .unwrap()
            .map(|file| file.unwrap().path());
        let has = |list: &PathBuf| {
            let text = std::fs::read_to_string(list).unwrap_or_default();
            text.lines()
                .any(|line| line.trim_end_matches([' ', '\\']) == wanted)
        };
        let list = lists
            .filter(|file| file.extension().is_some_and(|kind| kind == "txt"))
            .find(has);
        let list = list.unwrap_or_else(|| panic!("deploy/rootfs has no list for {wanted}"));
        Self {
            folder,
            version: version.unwrap().to_owned(),
            programs: programs(Some(&list)),
        }
    }

    /// The inventory of the example, for this release and the newest Kubernetes that we say it has.
    fn stage(&self, change: impl FnOnce(&mut Value)) -> Stage {
        let release = RELEASES
            .iter()
            .find(|release| release.kubespray.to_string() == self.version)
            .unwrap_or_else(|| panic!("the table has no line for {}", self.version));
        let spec = SPEC
            .replace("1.33.7", &release.newest[2].to_string())
            .replace("\"2.29.1\"", &format!("\"{}\"", self.version))
            .replace("\"2.17.14\"", &format!("\"{}\"", release.ansible_from));
        let spec = ClusterSpec::parse(&spec).unwrap();
        let machines = machines(&spec);
        let mut files = inventory::render(&spec.kubernetes.unwrap(), &machines, None).unwrap();
        let file = files.get_mut("inventory.json").unwrap();
        let mut inventory = serde_json::from_slice(file).unwrap();
        change(&mut inventory);
        *file = serde_json::to_vec(&inventory).unwrap();
        Stage::new(&files)
    }

    /// Runs a program of Ansible as on the bastion: in Kubespray's folder, with our settings.
    fn run(&self, stage: &Stage, program: &str, arguments: &[&str]) -> Output {
        let environment = inputs::environment();
        let environment = environment.iter().map(|(k, v)| (*k, stage.here(v)));
        Command::new(self.programs.join(program))
            .args([
                "--inventory",
                &stage.here(&format!("{}/inventory.json", inputs::INPUTS)),
            ])
            .args(arguments)
            .env_clear()
            .envs(environment)
            .env(
                "PATH",
                format!(
                    "{}:{}",
                    self.programs.display(),
                    std::env::var("PATH").unwrap()
                ),
            )
            .env("HOME", stage.home.path())
            .env("ANSIBLE_CONFIG", self.folder.join("ansible.cfg"))
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Plays what Kubespray plays before it goes to any host.
    fn validate(&self, stage: &Stage) -> Output {
        let book = stage.home.path().join("validate.yml");
        std::fs::write(&book, VALIDATE).unwrap();
        let extra = stage.here(&format!("@{}/extra_vars.json", inputs::INPUTS));
        let roles = format!("{}/roles", self.folder.display());
        let arguments = ["--extra-vars", &extra, book.to_str().unwrap()];
        assert!(Path::new(&roles).is_dir());
        self.run(stage, "ansible-playbook", &arguments)
    }
}

/// The roles of `playbooks/boilerplate.yml`. They look at variables alone; the architecture, which is
/// a fact of the host, is given.
const VALIDATE: &str = "
- hosts: all
  gather_facts: false
  connection: local
  vars: { ansible_architecture: x86_64 }
  roles: [dynamic_groups, validate_inventory]
";

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(err)
}

#[test]
fn heavy_real_kubespray_reads_our_groups() {
    let kubespray = Kubespray::given();
    let stage = kubespray.stage(|_| {});
    let listed = kubespray.run(&stage, "ansible-inventory", &["--list"]);
    assert!(listed.status.success(), "{}", text(&listed));
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let spec = ClusterSpec::parse(SPEC).unwrap();
    let named = |role: Role| {
        let nodes = spec.nodes().into_iter().filter(|node| node.role == role);
        Value::from(nodes.map(|node| node.name.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(listed["kube_control_plane"]["hosts"], named(Role::Master));
    assert_eq!(listed["etcd"]["hosts"], named(Role::Master));
    assert_eq!(listed["kube_node"]["hosts"], named(Role::Worker));
    assert_eq!(listed["_meta"]["hostvars"].as_object().unwrap().len(), 5);
}

#[test]
fn heavy_real_kubespray_finds_no_fault_in_the_syntax() {
    let kubespray = Kubespray::given();
    let stage = kubespray.stage(|_| {});
    for book in ["cluster.yml", "remove-node.yml"] {
        let extra = stage.here(&format!("@{}/extra_vars.json", inputs::INPUTS));
        let arguments = ["--syntax-check", "--become", "--extra-vars", &extra, book];
        let checked = kubespray.run(&stage, "ansible-playbook", &arguments);
        assert!(checked.status.success(), "{book}: {}", text(&checked));
    }
}

#[test]
fn heavy_real_kubespray_validates_our_inventory_and_refuses_broken_ones() {
    let kubespray = Kubespray::given();
    let sound = kubespray.validate(&kubespray.stage(|_| {}));
    assert!(sound.status.success(), "{}", text(&sound));

    let refused = |change: &dyn Fn(&mut Value), why: &str| {
        let ran = kubespray.validate(&kubespray.stage(change));
        assert!(!ran.status.success(), "{why}: {}", text(&ran));
        assert!(text(&ran).contains(why), "{why}: {}", text(&ran));
    };
    let even = |inventory: &mut Value| {
        let hosts = &mut inventory["all"]["children"]["etcd"]["hosts"];
        hosts.as_object_mut().unwrap().remove("small-master-3");
    };
    refused(&even, "even number of etcd");
    let plugin =
        |inventory: &mut Value| inventory["all"]["vars"]["kube_network_plugin"] = json!("x");
    refused(&plugin, "unsupported options");
    let version = |inventory: &mut Value| inventory["all"]["vars"]["kube_version"] = json!("1.9.9");
    refused(&version, "unsupported version of Kubernetes");
    let text =
        |inventory: &mut Value| inventory["all"]["vars"]["download_run_once"] = json!("false");
    refused(&text, "known booleans");
}
