//! Why descriptors are of no use.

use std::error::Error;
use std::fmt;

/// Why a server with reflection does not start: what [`Reflection::descriptors`](super::Reflection::descriptors) was given
/// cannot be served.
///
/// It is in [`StartError::Companion`](touchdown::StartError::Companion).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DescriptorError {
    /// The bytes are no encoded `google.protobuf.FileDescriptorSet`, or have no file. `set` counts from one, in the order in
    /// which the sets were given.
    #[non_exhaustive]
    NoSet {
        /// Which of the sets.
        set: usize,
    },
    /// The set has a file that is no `google.protobuf.FileDescriptorProto`.
    #[non_exhaustive]
    Malformed {
        /// Which of the sets; counts from one.
        set: usize,
        /// The file, or its place in the set if its name cannot be read.
        file: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A file imports one that no set has. What makes the set has to take the imports in: `protoc` with
    /// `--include_imports`, `buf build` without `--exclude-imports`.
    #[non_exhaustive]
    MissingImport {
        /// The file that imports.
        file: String,
        /// The one that is not there.
        import: String,
    },
    /// Two sets have files of the same name that differ. Callers know a file by its name alone, so one of them has to be
    /// renamed, or to be imported by a longer path.
    #[non_exhaustive]
    Ambiguous {
        /// The name.
        file: String,
    },
}

impl fmt::Display for DescriptorError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("reflection: ")?;
        match self {
            DescriptorError::NoSet { set } => write!(
                formatter,
                "descriptor set {set} is no google.protobuf.FileDescriptorSet, or is empty"
            ),
            DescriptorError::Malformed { set, file, what } => {
                write!(formatter, "{file} in descriptor set {set} {what}")
            }
            DescriptorError::MissingImport { file, import } => write!(
                formatter,
                "{file} imports {import}, which no descriptor set has: make the set with all imports \
                 (protoc --include_imports)"
            ),
            DescriptorError::Ambiguous { file } => write!(
                formatter,
                "the descriptor sets have more than one {file}, and they differ: rename one of them"
            ),
        }
    }
}

impl Error for DescriptorError {}
