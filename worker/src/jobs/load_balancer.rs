//! Load balancer: one per cluster, its rules exactly those of the spec, proven by reading them
//! back and by a TCP connection through it. Its address is kept in its own record and never in a
//! node's.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use jobs::ids::NodeName;
use jobs::record::{Address, LbRule, LoadBalancerRecord, NodeRecord};
use jobs::spec::Algorithm;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::provision::building;
use crate::cloud::clo::{
    BalancerAddress, BalancerStatus, Clo, HealthMonitor, NewLoadBalancer, NewRule, Rule,
    adopt_or_create,
};
use crate::cluster::Cluster;
use crate::engine::{Ctx, JobError, Poll, Proof, Proven};

/// The step names.
pub const STEPS: &[&str] = &[
    "name", "intent", "create", "active", "rules", "address", "record", "answers", "prove",
];

/// What was decided before the load balancer was touched.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "decided", rename_all = "kebab-case")]
enum Intent {
    Adopt { id: String },
    Create { address: Option<String> },
}

/// Makes the load balancer right.
pub async fn run(ctx: &Ctx) -> Result<Proven, JobError> {
    let clo = ctx.world().clo()?;
    let name = ctx.spec().load_balancer_name();
    let wanted = wanted_rules(ctx).await?;

    // Before it is looked up by its name, the name must be ours.
    ctx.step("name", || async {
        Cluster::of(ctx).claim(clo.project(), &name).await
    })
    .await?;
    let intent: Intent = ctx.step("intent", || decide(ctx, clo, &name)).await?;
    let id = match intent {
        Intent::Adopt { id } => id,
        Intent::Create { address } => {
            ctx.step("create", || create(ctx, clo, &name, address, &wanted))
                .await?
        }
    };
    ctx.wait("active", building(ctx), || active(clo, &id))
        .await?;
    // Every look brings the rules closer to what they should be, and looks again.
    ctx.wait("rules", building(ctx), || settle_rules(clo, &id, &wanted))
        .await?;
    let address: Address = ctx
        .wait("address", building(ctx), || address_of(clo, &id))
        .await?;
    let rules: Vec<LbRule> = wanted.iter().map(|w| w.rule.clone()).collect();
    let record = LoadBalancerRecord {
        id,
        name,
        address,
        rules,
        recovery: ctx.recovery().clone(),
    };
    ctx.step("record", || async {
        Cluster::of(ctx).put_load_balancer(&record).await
    })
    .await?;
    // Before Kubernetes is there, only sshd answers behind it.
    if let Some(rule) = record.rules.iter().find(|r| r.to == 22) {
        ctx.wait("answers", building(ctx), || {
            banner(ctx, record.address.ip, rule.port)
        })
        .await?;
    }
    ctx.prove("rules", || prove(clo, &record, &wanted)).await
}

/// A rule, and the cloud's id of the private address it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    rule: LbRule,
    address: String,
}

async fn wanted_rules(ctx: &Ctx) -> Result<Vec<Wanted>, JobError> {
    let cluster = Cluster::of(ctx);
    let mut wanted = Vec::new();
    for node in ctx
        .spec()
        .nodes()
        .iter()
        .filter(|node| !node.forward.is_empty())
    {
        let record: NodeRecord = cluster.provisioned(&node.name).await?;
        wanted.extend(node.forward.iter().map(|f| Wanted {
            rule: LbRule {
                port: f.port,
                node: node.name.clone(),
                to: f.to,
            },
            address: record.internal.id.clone(),
        }));
    }
    Ok(wanted)
}

/// By the id on record, else by name, else it is made. A static address must be free or its own.
async fn decide(ctx: &Ctx, clo: &Clo, name: &str) -> Result<Intent, JobError> {
    let gone = |status: &BalancerStatus| *status == BalancerStatus::Deleting;
    if let Some(record) = Cluster::of(ctx).load_balancer().await?
        && let Some(lb) = clo.load_balancer(&record.id).await?
        && !gone(&lb.status)
    {
        return Ok(Intent::Adopt { id: lb.id });
    }
    let named: Vec<_> = clo
        .load_balancers_named(name)
        .await?
        .into_iter()
        .filter(|lb| !gone(&lb.status))
        .collect();
    match named.as_slice() {
        [one] => return Ok(Intent::Adopt { id: one.id.clone() }),
        [] => {}
        many => {
            let ids = many
                .iter()
                .map(|lb| lb.id.as_str())
                .collect::<Vec<_>>()
                .join(", ");
            return Err(JobError::needs_approval(format!(
                "the cloud has several load balancers called `{name}`: {ids}"
            )));
        }
    }
    let Some(ip) = ctx.spec().load_balancer.as_ref().and_then(|lb| lb.address) else {
        return Ok(Intent::Create { address: None });
    };
    let addresses = clo.list_addresses().await?;
    let Some(found) = addresses
        .iter()
        .find(|a| a.external && a.address.as_deref() == Some(&ip.to_string()))
    else {
        return Err(JobError::fatal(format!(
            "load_balancer.address: the project has no external address {ip}"
        )));
    };
    match &found.attached_to {
        None => Ok(Intent::Create {
            address: Some(found.id.clone()),
        }),
        Some(owner) => {
            let text = format!(
                "load_balancer.address: {ip} is attached to {} {}",
                owner.entity, owner.id
            );
            Err(JobError::needs_approval(text))
        }
    }
}

async fn create(
    ctx: &Ctx,
    clo: &Clo,
    name: &str,
    address: Option<String>,
    wanted: &[Wanted],
) -> Result<String, JobError> {
    let spec = ctx
        .spec()
        .load_balancer
        .clone()
        .ok_or_else(|| JobError::fatal("the spec has no `load_balancer`"))?;
    let new = NewLoadBalancer {
        name: name.to_owned(),
        healthmonitor: HealthMonitor {
            kind: "TCP".into(),
            delay: spec.health.delay,
            timeout: spec.health.timeout,
            max_retries: spec.health.retries,
            ..HealthMonitor::default()
        },
        algorithm: Some(
            match spec.algorithm {
                Algorithm::RoundRobin => "ROUND_ROBIN",
                Algorithm::LeastConnections => "LEAST_CONNECTIONS",
            }
            .into(),
        ),
        session_persistence: None,
        address: Some(match address {
            Some(id) => BalancerAddress::Existing { id },
            None => BalancerAddress::New {
                ddos_protection: false,
            },
        }),
        rules: wanted.iter().map(new_rule).collect(),
    };
    let named = || clo.load_balancers_named(name);
    let made = adopt_or_create(
        &format!("load balancer {name}"),
        named,
        || clo.create_load_balancer(&new),
        ctx.settle(),
    )
    .await?;
    Ok(made.id().to_owned())
}

fn new_rule(wanted: &Wanted) -> NewRule {
    NewRule {
        address_id: wanted.address.clone(),
        external_protocol_port: wanted.rule.port,
        internal_protocol_port: wanted.rule.to,
    }
}

async fn active(clo: &Clo, id: &str) -> Result<Poll<()>, JobError> {
    Ok(match clo.load_balancer(id).await? {
        None => Poll::Pending(format!("the cloud does not show load balancer {id}")),
        Some(lb) => match lb.status {
            BalancerStatus::Active => Poll::Ready(()),
            BalancerStatus::Error | BalancerStatus::CreatingError => {
                let text = format!(
                    "load balancer {id} is {}; delete it in the cloud, then `rekindle retry --from intent`",
                    lb.status
                );
                return Err(JobError::needs_approval(text));
            }
            other => Poll::Pending(format!("load balancer {id} is {other}")),
        },
    })
}

fn is(rule: &Rule, wanted: &Wanted) -> bool {
    rule.external_protocol_port == wanted.rule.port
        && rule.internal_protocol_port == wanted.rule.to
        && rule.address.as_deref() == Some(&wanted.address)
}

/// Makes one missing rule or removes one that is too much, and says what is still to be done. A
/// rule to a server that is gone is too much; so is the second of two equal ones.
async fn settle_rules(clo: &Clo, id: &str, wanted: &[Wanted]) -> Result<Poll<()>, JobError> {
    let there = clo.list_rules(id).await?;
    let alive: Vec<&Rule> = there
        .iter()
        .filter(|r| r.status != BalancerStatus::Deleting)
        .collect();
    let broken = |r: &&&Rule| {
        matches!(
            r.status,
            BalancerStatus::Error | BalancerStatus::CreatingError
        )
    };
    let mut kept: Vec<&str> = Vec::new();
    for want in wanted {
        kept.extend(
            alive
                .iter()
                .filter(|r| is(r, want) && !broken(r))
                .map(|r| r.id.as_str())
                .next(),
        );
    }
    let mut changed = 0;
    for rule in alive.iter().filter(|r| !kept.contains(&r.id.as_str())) {
        clo.delete_rule(&rule.id).await?;
        changed += 1;
    }
    for want in wanted
        .iter()
        .filter(|want| !alive.iter().any(|r| is(r, want) && !broken(&r)))
    {
        clo.create_rule(id, &new_rule(want)).await?;
        changed += 1;
    }
    let settled =
        alive.iter().all(|r| r.status == BalancerStatus::Active) && there.len() == wanted.len();
    Ok(if changed == 0 && settled {
        Poll::Ready(())
    } else {
        Poll::Pending(format!(
            "{} of {} rules are active, {changed} changed now",
            alive
                .iter()
                .filter(|r| r.status == BalancerStatus::Active)
                .count(),
            wanted.len()
        ))
    })
}

async fn address_of(clo: &Clo, id: &str) -> Result<Poll<Address>, JobError> {
    let Some(lb) = clo.load_balancer(id).await? else {
        return Ok(Poll::Pending(format!(
            "the cloud does not show load balancer {id}"
        )));
    };
    for address in &lb.addresses {
        if let Some(found) = clo.address(address).await?
            && let Some(ip) = found
                .address
                .as_deref()
                .and_then(|ip| ip.parse().ok())
                .filter(|_| found.external)
        {
            return Ok(Poll::Ready(Address { id: found.id, ip }));
        }
    }
    Ok(Poll::Pending(
        "the load balancer has no public address yet".into(),
    ))
}

/// A TCP connection through the load balancer: sshd behind it speaks first.
async fn banner(ctx: &Ctx, ip: Ipv4Addr, port: u16) -> Result<Poll<String>, JobError> {
    let timeout = Duration::from_secs(10);
    let mut stream = match ctx
        .world()
        .dialer
        .dial(&ip.to_string(), port, timeout)
        .await
    {
        Ok(stream) => stream,
        Err(e) => return Ok(Poll::Pending(format!("{ip}:{port} does not answer: {e}"))),
    };
    let mut begin = [0_u8; 8];
    Ok(
        match tokio::time::timeout(timeout, stream.read_exact(&mut begin)).await {
            Ok(Ok(_)) if begin.starts_with(b"SSH-") => {
                Poll::Ready(String::from_utf8_lossy(&begin).into_owned())
            }
            Ok(Ok(_)) => Poll::Pending(format!("what answers at {ip}:{port} is not sshd")),
            Ok(Err(e)) => Poll::Pending(format!("{ip}:{port} closed the connection: {e}")),
            Err(_) => Poll::Pending(format!("{ip}:{port} accepted and stayed silent")),
        },
    )
}

async fn prove(
    clo: &Clo,
    record: &LoadBalancerRecord,
    wanted: &[Wanted],
) -> Result<Proof, JobError> {
    let there = clo.list_rules(&record.id).await?;
    let names: BTreeMap<&str, &NodeName> = wanted
        .iter()
        .map(|w| (w.address.as_str(), &w.rule.node))
        .collect();
    let seen: Vec<_> = there
        .iter()
        .map(|r| {
            let node = r.address.as_deref().and_then(|a| names.get(a)).map(|n| n.as_str());
            json!({"port": r.external_protocol_port, "node": node, "to": r.internal_protocol_port, "status": r.status.to_string()})
        })
        .collect();
    let all = there.len() == wanted.len()
        && wanted.iter().all(|w| {
            there
                .iter()
                .filter(|r| is(r, w) && r.status == BalancerStatus::Active)
                .count()
                == 1
        });
    Ok(Proof {
        expected: json!({"rules": record.rules}),
        observed: json!({"rules": seen}),
        holds: all,
    })
}
