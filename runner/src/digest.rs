//! Images are named by the SHA-256 digest of their compressed file.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest, written `sha256:` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 hexadecimal digits in lower case")]
pub struct NoDigest;

impl Digest {
    /// The 64 digits, for names of files.
    #[must_use]
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Reads the 64 digits.
    ///
    /// # Errors
    /// When there is anything else.
    pub fn from_hex(text: &str) -> Result<Self, NoDigest> {
        let mut digest = [0; 32];
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(NoDigest);
        }
        hex::decode_to_slice(text, &mut digest).map_err(|_| NoDigest)?;
        Ok(Self(digest))
    }
}

impl FromStr for Digest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        Self::from_hex(text.strip_prefix("sha256:").ok_or(NoDigest)?)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Adds up a digest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn digest(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// A reader that adds up the digest of what passes.
#[derive(Debug)]
pub(crate) struct Hashed<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R: Read> Hashed<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            hasher: Hasher::default(),
            bytes: 0,
        }
    }

    /// Reads what is left, and gives the digest and the length of all of it.
    ///
    /// # Errors
    /// Those of the reader.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((self.hasher.digest(), self.bytes))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        self.bytes += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let digest: Digest = text.parse().expect("a digest");
        assert_eq!(digest.to_string(), text);
        let (hashed, bytes) = Hashed::new(&b"abc"[..]).finish().expect("reads");
        assert_eq!((hashed, bytes), (digest, 3));
    }

    #[test]
    fn other_texts_are_no_digest() {
        for text in ["", "sha256:", "sha256:00", "md5:00", &"0".repeat(64)] {
            assert_eq!(text.parse::<Digest>(), Err(NoDigest), "{text}");
        }
        assert_eq!(Digest::from_hex(&"A".repeat(64)), Err(NoDigest));
    }
}
