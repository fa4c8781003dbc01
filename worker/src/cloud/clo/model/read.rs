//! Reads what the API writes in more ways than one.

use serde::{Deserialize, Deserializer};

/// A list or object that may also be missing or null.
pub(super) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// An id is there and not empty: things are told apart by it.
pub(in super::super) fn id<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let id = String::deserialize(from)?;
    match id.is_empty() {
        false => Ok(id),
        true => Err(serde::de::Error::custom("an id is empty")),
    }
}

/// A number that the API may write as `4`, `4.0` or null.
pub(super) fn whole_number<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let number: f64 = or_default(from)?;
    if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
        return Ok(number as u32);
    }
    Err(serde::de::Error::custom(format!(
        "{number} is not a whole number"
    )))
}

/// What has an id is told apart by it.
macro_rules! resource {
    ($($name:ident),*) => {
        $(impl Resource for $name {
            fn id(&self) -> &str {
                &self.id
            }
        })*
    };
}
pub(super) use resource;
