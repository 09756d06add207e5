//! Metadata: what a client sends beside its messages.

use std::fmt;

use grpcio::MetadataBuilder;

use crate::{MetadataError, Value};

/// The metadata that goes with a call.
///
/// Names are sent in lower case. Those that end in `-bin` have bytes as values, all others printable ASCII. A name may
/// occur more than once.
///
/// ```
/// use touchdown::client::Metadata;
///
/// let mut metadata = Metadata::new();
/// metadata.add("tenant", "north")?;
/// metadata.add("trace-bin", &[1, 2, 3])?;
/// assert_eq!(metadata.get("tenant"), Some("north"));
/// # Ok::<(), touchdown::MetadataError>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    entries: Vec<(String, Vec<u8>)>,
}

impl Metadata {
    /// Nothing.
    pub const fn new() -> Metadata {
        Metadata {
            entries: Vec::new(),
        }
    }

    /// Adds an entry, after those of the same name that are there.
    ///
    /// # Errors
    ///
    /// [`MetadataError`], for a name or a value that cannot be sent; and then nothing is added.
    pub fn add<'v>(
        &mut self,
        name: &str,
        value: impl Into<Value<'v>>,
    ) -> Result<(), MetadataError> {
        self.entries.push(value.into().checked(name)?);
        Ok(())
    }

    /// [`add`](Self::add), for a chain.
    ///
    /// # Errors
    ///
    /// As those of [`add`](Self::add).
    pub fn with<'v>(
        mut self,
        name: &str,
        value: impl Into<Value<'v>>,
    ) -> Result<Metadata, MetadataError> {
        self.add(name, value)?;
        Ok(self)
    }

    /// Removes all entries of this name. Case does not matter in `name`.
    pub fn remove(&mut self, name: &str) {
        self.entries.retain(|it| !it.0.eq_ignore_ascii_case(name));
    }

    /// The first value of a text entry. Case does not matter in `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get_bin(name)?).ok()
    }

    /// The first value of an entry of any kind. Case does not matter in `name`.
    pub fn get_bin(&self, name: &str) -> Option<&[u8]> {
        let mut found = self.iter().filter(|it| it.0.eq_ignore_ascii_case(name));
        found.next().map(|it| it.1)
    }

    /// Every name and value, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.entries.iter().map(|it| (&*it.0, &*it.1))
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn into_grpcio(self) -> Result<grpcio::Metadata, grpcio::Error> {
        let mut builder = MetadataBuilder::with_capacity(self.entries.len());
        for (name, value) in &self.entries {
            match std::str::from_utf8(value) {
                Ok(value) if !name.ends_with("-bin") => builder.add_str(name, value)?,
                _ => builder.add_bytes(name, value)?,
            };
        }
        Ok(builder.build())
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.iter();
        let entries = entries.map(|(name, value)| (name, String::from_utf8_lossy(value)));
        formatter.debug_map().entries(entries).finish()
    }
}
