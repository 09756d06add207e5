//! What the files describe, for servers that tell their callers by reflection.

use protobuf::descriptor::FileDescriptorSet;
use protobuf::Message;

use crate::Error;

/// The file in which the descriptors are.
pub(crate) const FILE: &str = "descriptors.bin";

/// What the index has of them. The path is looked for beside the file in which it stands.
pub(crate) const CODE: &str = "
/// What the `.proto` files describe, everything that they import included: an encoded
/// `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[::core::primitive::u8] = ::core::include_bytes!(\"descriptors.bin\");
";

/// Encodes the descriptors as they are in the `.proto` files, in the order in which they came, without comments and places.
pub(crate) fn encode(files: &FileDescriptorSet) -> Result<Vec<u8>, Error> {
    let mut files = files.clone();
    for file in &mut files.file {
        file.source_code_info.clear();
    }
    (files.write_to_bytes())
        .map_err(|error| Error::new(format!("cannot encode the descriptors: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_names_the_file() {
        assert!(CODE.contains(&format!("include_bytes!({FILE:?})")));
    }
}
