//! The rule for formatting.
//!
//! Format only a volume that our records say we created blank, that was never formatted, and that
//! is blank by three independent looks: no signature by `blkid`, none by `wipefs`, and zeroes at
//! both ends. Everything else is kept or refused. `mkfs` itself protects nothing: without a
//! terminal it overwrites an existing file system in silence (measured, e2fsprogs 1.47), and
//! `blkid` cannot tell a blank disk from one it cannot read (exit status 2 for both, measured).

use std::collections::BTreeMap;
use std::time::Duration;

use jobs::record::{Origin, VolumeRecord};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::engine::JobError;
use crate::ssh::{Command, Host, HostExt};

/// What is to become of a volume's content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "plan", rename_all = "kebab-case")]
pub(crate) enum Plan {
    /// Its file system is the one we know, or one that was there before us: keep it.
    Keep { uuid: String, kind: String },
    /// It is blank and ours: make an ext4 with this UUID.
    Format { uuid: String, label: String },
}

impl Plan {
    pub(crate) fn uuid(&self) -> &str {
        match self {
            Plan::Keep { uuid, .. } | Plan::Format { uuid, .. } => uuid,
        }
    }

    pub(crate) fn kind(&self) -> &str {
        match self {
            Plan::Keep { kind, .. } => kind,
            Plan::Format { .. } => "ext4",
        }
    }
}

/// What is on a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Content {
    /// UUID of the file system.
    pub(crate) uuid: Option<String>,
    /// Its kind, such as `ext4`; also other things, such as `crypto_LUKS`.
    pub(crate) kind: Option<String>,
    /// Any signature at all, by `blkid` or `wipefs`.
    pub(crate) signed: bool,
    /// Both ends are zero.
    pub(crate) zeroes: bool,
}

/// Looks at the device and decides.
pub(crate) async fn plan<H: Host + ?Sized>(
    host: &H,
    device: &str,
    volume: &VolumeRecord,
) -> Result<Plan, JobError> {
    let content = look(host, device).await?;
    decide(volume, &content, Uuid::new_v4())
}

/// The decision, from the volume's record and what is on it. Pure.
fn decide(volume: &VolumeRecord, content: &Content, fresh: Uuid) -> Result<Plan, JobError> {
    let refuse = |why: &str| {
        Err(JobError::needs_approval(format!(
            "volume {} (`{}`) is left as it is: {why}; it shows {}",
            volume.id,
            volume.name,
            content.describe()
        )))
    };
    let keep = |uuid: &str, kind: &str| {
        Ok(Plan::Keep {
            uuid: uuid.to_owned(),
            kind: kind.to_owned(),
        })
    };
    let mountable = content
        .kind
        .as_deref()
        .filter(|kind| ["ext4", "ext3", "xfs"].contains(kind));
    match (&volume.fs_uuid, &content.uuid, mountable) {
        // The file system that we know.
        (Some(known), Some(there), Some(kind)) if known == there => return keep(there, kind),
        _ if volume.formatted => {
            return refuse("its record says that it holds our file system, with data");
        }
        _ => {}
    }
    match &volume.origin {
        Origin::Adopted { .. } => match (&content.uuid, mountable) {
            (Some(uuid), Some(kind)) if volume.fs_uuid.is_none() => keep(uuid, kind),
            _ => refuse("we did not create it, so we never format it"),
        },
        Origin::CreatedBlank { .. } if content.is_blank() => {
            // An intent on record is kept, so that there is one UUID for all tries.
            let uuid = volume.fs_uuid.clone().unwrap_or_else(|| fresh.to_string());
            Ok(Plan::Format {
                uuid,
                label: label_of(volume),
            })
        }
        Origin::CreatedBlank { .. } => refuse("we created it blank, and it is not blank any more"),
    }
}

/// Carries the plan out. Looks once more first: between plan and deed a worker may have died.
pub(crate) async fn carry_out<H: Host + ?Sized>(
    host: &H,
    device: &str,
    plan: &Plan,
    volume: &VolumeRecord,
) -> Result<(), JobError> {
    let Plan::Format { uuid, label } = plan else {
        return Ok(());
    };
    let content = look(host, device).await?;
    if content.uuid.as_ref() == Some(uuid) {
        // Made by an earlier try of ours. Whole?
        if host.run(&["e2fsck", "-f", "-n", device]).await?.success() {
            return Ok(());
        }
    } else if content.signed {
        return Err(JobError::needs_approval(format!(
            "volume {} was blank and now shows {}: it is left as it is",
            volume.id,
            content.describe()
        )));
    }
    if volume.formatted {
        // The step is repeated by hand (`rekindle retry --from`), long after it was done: by now
        // the volume has been mounted, and a file system that is not clean holds data.
        return Err(JobError::needs_approval(format!(
            "volume {} was formatted before and holds data; it shows {}: it is left as it is",
            volume.id,
            content.describe()
        )));
    }
    // Blank, or what a `mkfs` of ours left that was cut off: this volume has never been mounted.
    // sshd passes no signal on to commands of root, so a `mkfs` that we give up must end by itself,
    // before the next one looks. While it runs it holds the device exclusively (O_EXCL): a second one
    // and a mount are refused.
    let seconds = MKFS.as_secs().to_string();
    let mkfs = ["timeout", "-s", "KILL", &seconds, "mkfs.ext4", "-q"];
    let mkfs = [&mkfs[..], &["-U", uuid, "-L", label, device]].concat();
    let mkfs = Command::new(&mkfs)
        .timeout(MKFS + Duration::from_secs(30))
        .label("mkfs.ext4");
    host.execute_ok(&mkfs).await?;
    let made = probe(host, device).await?;
    if made.uuid.as_ref() == Some(uuid) && made.kind.as_deref() == Some("ext4") {
        return Ok(());
    }
    Err(JobError::retry(format!(
        "after mkfs, volume {} shows {}",
        volume.id,
        made.describe()
    )))
}

/// What `blkid` sees.
pub(crate) async fn probe<H: Host + ?Sized>(host: &H, device: &str) -> Result<Content, JobError> {
    // -p reads the device itself, never a cache.
    let output = host.run(&["blkid", "-p", "-o", "export", device]).await?;
    match output.status {
        0 => {
            let text = output.text();
            let fields: BTreeMap<&str, &str> = text
                .lines()
                .filter_map(|line| line.split_once('='))
                .collect();
            let field = |name: &str| fields.get(name).map(|value| (*value).to_owned());
            let kind = field("TYPE").or_else(|| field("PTTYPE"));
            Ok(Content {
                uuid: field("UUID"),
                kind,
                signed: true,
                zeroes: false,
            })
        }
        2 => Ok(Content::default()),
        8 => Err(JobError::needs_approval(format!(
            "`blkid` finds several signatures on {device} and cannot tell which is right"
        ))),
        other => Err(JobError::retry(format!(
            "`blkid` could not read {device} (exit {other})"
        ))),
    }
}

/// All looks together. Each must succeed; a failed one is an error and never "blank".
async fn look<H: Host + ?Sized>(host: &H, device: &str) -> Result<Content, JobError> {
    let size: u64 = {
        let text = host
            .run_ok(&["blockdev", "--getsize64", device])
            .await?
            .text();
        text.trim().parse().map_err(|_| {
            JobError::retry(format!(
                "`blockdev` answered `{}` for {device}",
                text.trim()
            ))
        })?
    };
    if size < 8 * MIB {
        return Err(JobError::needs_approval(format!(
            "{device} has only {size} bytes"
        )));
    }
    let seen = probe(host, device).await?;
    let wipefs = host
        .run_ok(&["wipefs", "--no-act", "--parsable", device])
        .await?
        .text();
    let signatures = wipefs
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'))
        .count();
    let zeroes = is_zero(host, device, 0).await? && is_zero(host, device, size - MIB).await?;
    Ok(Content {
        signed: seen.signed || signatures > 0,
        zeroes,
        ..seen
    })
}

/// Making a file system takes no longer: ext4 leaves most of its work for later.
const MKFS: Duration = Duration::from_secs(300);

const MIB: u64 = 1024 * 1024;

/// Whether one MiB from `offset` on is zero. `cmp` says 0 for equal, 1 for different, and anything
/// else for trouble.
async fn is_zero<H: Host + ?Sized>(host: &H, device: &str, offset: u64) -> Result<bool, JobError> {
    let skip = format!("{offset}:0");
    let output = host
        .run(&["cmp", "-n", "1048576", "-i", &skip, device, "/dev/zero"])
        .await?;
    match output.status {
        0 => Ok(true),
        1 => Ok(false),
        other => Err(JobError::retry(format!(
            "`cmp` could not read {device} at {offset} (exit {other})"
        ))),
    }
}

impl Content {
    fn is_blank(&self) -> bool {
        !self.signed && self.zeroes && self.uuid.is_none() && self.kind.is_none()
    }

    fn describe(&self) -> String {
        match (&self.kind, &self.uuid) {
            (Some(kind), Some(uuid)) => format!("{kind} {uuid}"),
            (Some(kind), None) => kind.clone(),
            _ if self.signed => "a signature".into(),
            _ if self.zeroes => "nothing".into(),
            _ => "data without a signature".into(),
        }
    }
}

/// A label for people: the end of the volume's name, as much as ext4 holds (16 bytes).
fn label_of(volume: &VolumeRecord) -> String {
    let from = volume.name.len().saturating_sub(16);
    volume.name[from..].trim_start_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use jobs::ids::{NodeName, RecoveryId};
    use jobs::spec::Storage;

    use proptest::prelude::*;

    use super::*;
    use crate::engine::Again;
    use crate::ssh::Output;
    use crate::ssh::scripted::Scripted;

    fn volume(origin: &str, fs_uuid: Option<&str>, formatted: bool) -> VolumeRecord {
        let recovery = RecoveryId::new("r-1").expect("valid");
        VolumeRecord {
            id: "v-1".into(),
            name: "test-cache-1-data".into(),
            node: NodeName::new("test-cache-1").expect("valid"),
            disk: "data".into(),
            size_gb: 10,
            storage: Storage::Network,
            origin: if origin == "blank" {
                Origin::CreatedBlank { recovery }
            } else {
                Origin::Adopted { recovery }
            },
            fs_uuid: fs_uuid.map(Into::into),
            formatted,
            mount: "/mnt/disks/data".into(),
            protected: false,
        }
    }

    fn blank() -> Content {
        Content {
            zeroes: true,
            ..Content::default()
        }
    }

    fn holding(kind: &str, uuid: Option<&str>) -> Content {
        Content {
            uuid: uuid.map(Into::into),
            kind: Some(kind.into()),
            signed: true,
            zeroes: false,
        }
    }

    #[test]
    fn flaw_6_only_what_we_created_blank_and_is_blank_is_ever_formatted() {
        let formats = |v: &VolumeRecord, c: &Content| {
            matches!(decide(v, c, Uuid::nil()), Ok(Plan::Format { .. }))
        };
        assert!(formats(&volume("blank", None, false), &blank()));
        assert!(
            formats(&volume("blank", Some("u"), false), &blank()),
            "an intent on record is carried out"
        );
        let others = [
            holding("ext4", Some("x")),
            holding("xfs", Some("x")),
            holding("crypto_LUKS", Some("x")),
            holding("gpt", None),
            Content {
                signed: true,
                zeroes: true,
                ..Content::default()
            },
            Content {
                signed: false,
                zeroes: false,
                ..Content::default()
            },
        ];
        for content in &others {
            assert!(
                !formats(&volume("blank", None, false), content),
                "{content:?}"
            );
        }
        for content in others.iter().chain([&blank()]) {
            assert!(
                !formats(&volume("adopted", None, false), content),
                "{content:?}"
            );
            assert!(
                !formats(&volume("adopted", Some("u"), false), content),
                "{content:?}"
            );
            assert!(
                !formats(&volume("blank", Some("u"), true), content),
                "{content:?}"
            );
            assert!(
                !formats(&volume("adopted", Some("u"), true), content),
                "{content:?}"
            );
        }
    }

    #[test]
    fn a_known_file_system_is_kept_and_a_lost_one_is_a_case_for_people() {
        let keeps = decide(
            &volume("blank", Some("u"), true),
            &holding("ext4", Some("u")),
            Uuid::nil(),
        );
        assert_eq!(
            keeps.expect("kept"),
            Plan::Keep {
                uuid: "u".into(),
                kind: "ext4".into()
            }
        );
        for content in [
            blank(),
            holding("ext4", Some("x")),
            holding("crypto_LUKS", Some("u")),
        ] {
            let error = decide(&volume("blank", Some("u"), true), &content, Uuid::nil())
                .expect_err("refused");
            assert_eq!(error.again, Again::NeedsApproval, "{content:?}");
        }
    }

    #[test]
    fn an_adopted_volume_brings_its_own_file_system() {
        let keeps = decide(
            &volume("adopted", None, false),
            &holding("xfs", Some("x")),
            Uuid::nil(),
        );
        assert_eq!(keeps.expect("kept").kind(), "xfs");
    }

    #[test]
    fn labels_fit_ext4() {
        assert_eq!(label_of(&volume("blank", None, false)), "est-cache-1-data");
    }

    /// What one command of the looks answers.
    fn answers() -> impl Strategy<Value = Output> {
        let text = prop_oneof![
            4 => Just(String::new()),
            2 => Just((20_u64 << 30).to_string()),
            1 => Just("DEVNAME=/dev/vdb\nUUID=u\nTYPE=ext4\n".to_owned()),
            1 => Just("0x438,u,,ext4\n".to_owned()),
            1 => Just("# offset,uuid,label,type\n".to_owned()),
            1 => "\\PC{0,30}",
        ];
        let status = prop_oneof![4 => Just(0_u32), 3 => Just(2), 1 => Just(1), 1 => Just(8), 1 => 0..256_u32];
        (status, text).prop_map(|(status, text)| Output {
            status,
            stdout: text.into_bytes(),
            stderr: Vec::new(),
        })
    }

    proptest! {
        #![proptest_config(crate::fuzz::cases(1000))]

        #[test]
        fn whatever_a_host_answers_only_a_blank_volume_of_ours_is_formatted(
            size in answers(), blkid in answers(), wipefs in answers(), head in answers(), tail in answers(),
            created in any::<bool>(), known in any::<bool>(), formatted in any::<bool>(),
        ) {
            let all = [size, blkid, wipefs, head, tail];
            let [size, blkid, wipefs, head, tail] = all.clone();
            let mut ends = vec![tail, head];
            let host = Scripted::new(move |command, _| {
                Ok(match command.argv[0].as_str() {
                    "blockdev" => size.clone(),
                    "blkid" => blkid.clone(),
                    "wipefs" => wipefs.clone(),
                    "cmp" => ends.pop().expect("two looks"),
                    other => panic!("a plan runs `{other}`"),
                })
            });
            let [size, blkid, wipefs, head, tail] = all;
            let volume = volume(if created { "blank" } else { "adopted" }, known.then_some("u"), formatted);
            let planned = tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime")
                .block_on(plan(&host, "/dev/x", &volume));
            let unsigned = wipefs.success() && wipefs.text().lines().all(|l| l.trim().is_empty() || l.starts_with('#'));
            let large = size.success() && size.text().trim().parse::<u64>().is_ok_and(|n| n >= 8 * MIB);
            let blank = large && blkid.status == 2 && unsigned && head.success() && tail.success();
            let may = created && !formatted && blank;
            let formats = matches!(planned, Ok(Plan::Format { .. }));
            prop_assert_eq!(formats, may, "{:?}", planned.map_err(|e| e.to_string()));
            if let Ok(Plan::Keep { uuid, .. }) = planned {
                prop_assert_eq!(uuid, "u");
                prop_assert!(blkid.success() && (known || !created));
            }
        }
    }
}
