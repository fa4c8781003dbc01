//! Where things stand, in CLO's words.

use std::fmt;

use serde::{Deserialize, Deserializer};

/// Declares a status enum. The words are CLO's; what we do not know is kept as it came, and
/// callers keep waiting on it.
macro_rules! status {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal $(| $alias:literal)*),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
            /// A word that is not in our list, in upper case; empty when there was none.
            Other(String),
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                let word = word.trim().to_ascii_uppercase().replace('-', "_");
                match word.as_str() {
                    $($word $(| $alias)* => Self::$variant,)*
                    _ => Self::Other(word),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $word,)*
                    Self::Other(word) => word,
                })
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::Other(String::new())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Ok(Option::<String>::deserialize(from)?.unwrap_or_default().as_str().into())
            }
        }
    };
}

status! {
    /// Where a server stands. Active does not mean that SSH answers.
    ServerStatus {
        /// Being made.
        Building = "BUILDING",
        /// Up (the reference project has also seen `RUNNING`).
        Active = "ACTIVE" | "RUNNING",
        /// Switched off.
        Stopped = "STOPPED",
        /// Being switched on.
        Starting = "STARTING",
        /// Being switched off.
        Stopping = "STOPPING",
        /// Getting another flavor.
        Resizing = "RESIZING",
        /// Going away.
        Deleting = "DELETING",
        /// Failed for good.
        Error = "ERROR",
    }
}

status! {
    /// Where a volume or local disk stands.
    VolumeStatus {
        /// Being made.
        Creating = "CREATING",
        /// Attached to nothing.
        Available = "AVAILABLE",
        /// Being made larger.
        Resizing = "RESIZING",
        /// On its way to a server.
        Attaching = "ATTACHING",
        /// Attached to a server.
        InUse = "IN_USE",
        /// On its way off a server.
        Detaching = "DETACHING",
        /// Going away.
        Deleting = "DELETING",
        /// Failed for good.
        Error = "ERROR",
    }
}

status! {
    /// Where an address stands.
    AddressStatus {
        /// On its way; it may not even have a number yet.
        Processing = "PROCESSING",
        /// Free.
        Down = "DOWN",
        /// Attached to something.
        Active = "ACTIVE",
    }
}

status! {
    /// Where a load balancer or one of its rules stands.
    BalancerStatus {
        /// Being made.
        Creating = "CREATING",
        /// Working.
        Active = "ACTIVE",
        /// Being switched on.
        Starting = "STARTING",
        /// Being switched off.
        Stopping = "STOPPING",
        /// Switched off.
        Stopped = "STOPPED",
        /// Being changed.
        Changing = "CHANGING",
        /// Being changed.
        Updating = "UPDATING",
        /// Going away.
        Deleting = "DELETING",
        /// Could not be made.
        CreatingError = "CREATING_ERROR",
        /// Failed for good.
        Error = "ERROR",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_read_without_regard_to_case_and_dashes() {
        for (word, want) in [
            ("IN_USE", VolumeStatus::InUse),
            ("in-use", VolumeStatus::InUse),
            ("Available", VolumeStatus::Available),
            ("frozen", VolumeStatus::Other("FROZEN".into())),
            ("", VolumeStatus::Other(String::new())),
        ] {
            assert_eq!(VolumeStatus::from(word), want, "{word}");
        }
        assert_eq!(ServerStatus::from("running"), ServerStatus::Active);
        assert_eq!(
            BalancerStatus::from("creating-error").to_string(),
            "CREATING_ERROR"
        );
    }
}
