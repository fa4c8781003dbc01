//! Commands about the machine itself.

use super::machine::View;
use super::shell::{Args, Output};

pub(super) fn run(view: &mut View<'_>, name: &str, args: &[&str]) -> Option<Output> {
    let machine = &view.machine;
    Some(match name {
        "true" | ":" => Output::default(),
        "false" => Output::silent(1),
        "echo" => Output::ok(format!("{}\n", args.join(" "))),
        "hostname" => Output::ok(format!("{}\n", machine.name)),
        "whoami" => Output::ok("root\n"),
        "id" => id(view, args),
        "uname" => Output::ok(uname(&machine.name, args)),
        "uptime" => Output::ok(" 12:00:00 up 1 min,  0 users,  load average: 0.00, 0.00, 0.00\n"),
        "sync" => sync(view, args),
        _ => return None,
    })
}

fn id(view: &View<'_>, args: &[&str]) -> Output {
    let args = Args::parse(args, "", &[]);
    let user = args.operands.first().copied().unwrap_or("root");
    let passwd = view.read("/etc/passwd").unwrap_or_default();
    let passwd = String::from_utf8_lossy(&passwd).into_owned();
    let mut known = passwd.lines().map(|l| l.split(':').collect::<Vec<_>>());
    let ids = match known.find(|fields| fields.first() == Some(&user)) {
        Some(fields) if fields.len() > 3 => (fields[2].to_owned(), fields[3].to_owned()),
        _ if user == "root" => ("0".to_owned(), "0".to_owned()),
        _ => return Output::fail(1, format!("id: ‘{user}’: no such user")),
    };
    let (uid, gid) = ids;
    Output::ok(if args.has(&["u", "user"]) {
        format!("{uid}\n")
    } else if args.has(&["g", "group"]) {
        format!("{gid}\n")
    } else {
        format!("uid={uid}({user}) gid={gid}({user}) groups={gid}({user})\n")
    })
}

fn uname(node: &str, args: &[&str]) -> String {
    let args = Args::parse(args, "", &[]);
    let release = "6.1.0-18-cloud-amd64";
    if args.has(&["a", "all"]) {
        return format!(
            "Linux {node} {release} #1 SMP PREEMPT_DYNAMIC Debian 6.1.76-1 x86_64 GNU/Linux\n"
        );
    }
    let words = [("n", node), ("r", release), ("m", "x86_64"), ("s", "Linux")];
    let wanted = words.iter().filter(|(option, _)| args.has(&[option]));
    let shown: Vec<&str> = wanted.map(|(_, word)| *word).collect();
    match shown.is_empty() {
        true => "Linux\n".to_owned(),
        false => format!("{}\n", shown.join(" ")),
    }
}

fn sync(view: &View<'_>, args: &[&str]) -> Output {
    for path in Args::parse(args, "", &[]).operands {
        if let Err(error) = view.entry(path) {
            return Output::fail(1, format!("sync: error opening '{path}': {error}"));
        }
    }
    Output::default()
}
