//! Which files are written, and when.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use protobuf::descriptor::FileDescriptorSet;
use protobuf::Message;
use touchdown_build::Builder;

const PROTO: &str =
    "syntax = \"proto3\";\nmessage M { string text = 1; }\nservice S { rpc Get(M) returns (M); }\n";

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn unchanged_files_are_not_written_again() {
    let folder = tempfile::tempdir().unwrap();
    let (proto, out) = (folder.path().join("a.proto"), folder.path().join("out"));
    let builder = Builder::new().file(&proto).out_dir(&out);
    fs::write(&proto, PROTO).unwrap();
    builder.clone().compile().unwrap();
    assert_eq!(files(&out), ["a.rs", "mod.rs"]);

    let long_ago = SystemTime::UNIX_EPOCH;
    for name in ["a.rs", "mod.rs"] {
        let file = fs::File::options()
            .write(true)
            .open(out.join(name))
            .unwrap();
        file.set_modified(long_ago).unwrap();
    }
    let written =
        |name: &str| fs::metadata(out.join(name)).unwrap().modified().unwrap() != long_ago;

    builder.clone().compile().unwrap();
    assert!(!written("a.rs") && !written("mod.rs"));

    fs::write(&proto, PROTO.replace("Get", "Put")).unwrap();
    builder.compile().unwrap();
    assert!(written("a.rs") && !written("mod.rs"));
}

#[test]
fn descriptors_are_written_for_those_who_ask() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let out = root.join("out");
    let importing = PROTO.replace(
        "message",
        "import \"google/protobuf/empty.proto\";\n// Said to people.\nmessage",
    );
    fs::write(root.join("a.proto"), importing).unwrap();
    let builder = Builder::new().file(root.join("a.proto")).out_dir(&out);

    builder.clone().compile().unwrap();
    assert_eq!(files(&out), ["a.rs", "mod.rs"]);
    let index = || fs::read_to_string(out.join("mod.rs")).unwrap();
    assert!(!index().contains("FILE_DESCRIPTOR_SET"));

    builder.clone().descriptors(true).compile().unwrap();
    assert_eq!(files(&out), ["a.rs", "descriptors.bin", "mod.rs"]);
    assert!(index().contains("pub const FILE_DESCRIPTOR_SET: &[::core::primitive::u8] ="));
    let set = FileDescriptorSet::parse_from_bytes(&fs::read(out.join("descriptors.bin")).unwrap());
    let set = set.unwrap();
    let names: Vec<&str> = set.file.iter().map(|file| file.name()).collect();
    assert_eq!(names, ["google/protobuf/empty.proto", "a.proto"]);
    assert_eq!(set.file[1].service[0].method[0].input_type(), ".M");
    assert!(set.file.iter().all(|it| it.source_code_info.is_none()));

    builder.compile().unwrap();
    assert!(!index().contains("FILE_DESCRIPTOR_SET"));
}

#[test]
fn imports_are_generated_and_the_well_known_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join("sub")).unwrap();
    fs::write(
        root.join("a.proto"),
        "syntax = \"proto3\";\nimport \"sub/b.proto\";\nimport \"google/protobuf/empty.proto\";\n",
    )
    .unwrap();
    fs::write(root.join("sub/b.proto"), PROTO).unwrap();
    Builder::new()
        .file(root.join("a.proto"))
        .out_dir(root.join("out"))
        .compile()
        .unwrap();
    assert_eq!(files(&root.join("out")), ["a.rs", "b.rs", "mod.rs"]);
    assert!(fs::read_to_string(root.join("out/mod.rs"))
        .unwrap()
        .ends_with("pub mod a;\npub mod b;\n"));
}

#[test]
fn files_may_be_given_by_their_path_in_an_include_folder() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.proto"), PROTO).unwrap();
    Builder::new()
        .file("a.proto")
        .include(folder.path())
        .out_dir(folder.path().join("out"))
        .compile()
        .unwrap();
}

#[test]
fn a_byte_order_mark_and_line_ends_of_windows_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let proto = format!(
        "\u{feff}// Hi.\r\n{}",
        PROTO.replace('\n', "\r\n// Bye.\r\n")
    );
    fs::write(folder.path().join("a.proto"), proto).unwrap();
    let out = folder.path().join("out");
    Builder::new()
        .file(folder.path().join("a.proto"))
        .out_dir(&out)
        .compile()
        .unwrap();
    let code = fs::read_to_string(out.join("a.rs")).unwrap();
    assert!(
        !code.contains('\r') && code.contains("/// Bye.\n"),
        "{code}"
    );
}
