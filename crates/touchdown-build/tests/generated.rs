//! Generates code of `.proto` files that are as nasty as `.proto` files are, compiles it against a stand-in
//! for the runtime, in a crate that denies warnings, and documents it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[test]
fn generated_code_compiles_works_and_is_documented() {
    let fixture = Fixture::new();

    // The user's own tests, in both editions; examples in comments are not taken for tests.
    let tests = fixture.cargo(&["test", "--workspace"], &[]);
    let stdout = String::from_utf8_lossy(&tests.stdout);
    assert_eq!(stdout.matches("14 passed; 0 failed").count(), 2, "{stdout}");
    // What there is no code for is said.
    let stderr = String::from_utf8_lossy(&tests.stderr);
    for warning in [
        "proto/groups.proto:7:18: the group `one` has no field in Rust; what a message has of it is kept",
        "proto/groups.proto:21:31: the extension `added` has no constant in Rust: it is a group;",
        "proto/extends.proto:12:20: the extension `outer` has no constant in Rust: extensions need messages with \
         reflection, and this file is generated without;",
    ] {
        assert!(stderr.contains(warning), "{warning}\n{stderr}");
    }

    // The lints of rustdoc are allowed in generated code, as all are, but there must be no need to.
    let docs = fixture.cargo(
        &["doc", "--no-deps", "-p", "documented"],
        &[("RUSTDOCFLAGS", "--force-warn rustdoc::all")],
    );
    let stderr = String::from_utf8_lossy(&docs.stderr);
    assert!(!stderr.contains("warning"), "{stderr}");
}

/// A program may need a later version of `protobuf`, for another of its dependencies: cargo then takes that one for all.
#[test]
fn a_later_version_of_protobuf_is_admitted() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("later-protobuf");
    let _ = fs::remove_dir_all(&folder);
    let write = |path: &str, text: &str| {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    // As they would be published: of one version, and depending on each other by exactly that.
    let mut patches = String::new();
    for name in [
        "protobuf",
        "protobuf-support",
        "protobuf-parse",
        "protobuf-codegen",
    ] {
        let exact = match name {
            "protobuf-codegen" => {
                "[dependencies]\nprotobuf = \"=3.7.99\"\nprotobuf-parse = \"=3.7.99\"\n"
            }
            "protobuf-parse" => "[dependencies]\nprotobuf = \"=3.7.99\"\n",
            _ => "",
        };
        write(
            &format!("{name}/Cargo.toml"),
            &format!(
                "[package]\nname = \"{name}\"\nversion = \"3.7.99\"\nedition = \"2021\"\n{exact}"
            ),
        );
        write(&format!("{name}/src/lib.rs"), "");
        patches += &format!("{name}.path = \"{name}\"\n");
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    write(
        "Cargo.toml",
        &format!(
            "[package]\nname = \"user\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[workspace]\n\n\
             [dependencies]\nprotobuf = \"3.7.99\"\n\n\
             [build-dependencies]\ntouchdown-build.path = {own:?}\n\n[patch.crates-io]\n{patches}"
        ),
    );
    write("src/lib.rs", "");
    let lock = own.join("../../Cargo.lock");
    if lock.exists() {
        write("Cargo.lock", &read(&lock));
    }
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
        ])
        .current_dir(&folder)
        .output()
        .unwrap();
    let tree = String::from_utf8_lossy(&output.stdout);
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    for name in ["protobuf v3.7.99", "protobuf-codegen v3.7.99"] {
        assert!(tree.contains(name), "{tree}");
    }
    assert!(!tree.contains("protobuf v3.7.2"), "{tree}");
}

/// A workspace with the stand-in and with the same user in two editions, who depends on the stand-in alone.
struct Fixture {
    folder: PathBuf,
}

impl Fixture {
    fn new() -> Fixture {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fixture");
        let write = |path: &str, text: &str| {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // An unchanged file is not compiled again.
            if fs::read_to_string(&path).ok().as_deref() != Some(text) {
                fs::write(path, text).unwrap();
            }
        };
        write(
            "Cargo.toml",
            "[workspace]\nresolver = \"2\"\nmembers = [\"*\"]\nexclude = [\"target\"]\n",
        );
        write(
            "touchdown/Cargo.toml",
            "[package]\nname = \"touchdown\"\nedition = \"2021\"\n\n[dependencies]\nprotobuf = \"=3.7.2\"\n",
        );
        write("touchdown/src/lib.rs", &read(&source.join("touchdown.rs")));
        for edition in ["2021", "2024"] {
            let user = format!("user-{edition}");
            write(
                &format!("{user}/Cargo.toml"),
                &format!(
                    "[package]\nname = \"{user}\"\nedition = \"{edition}\"\n\n[lib]\nname = \"user\"\n\n\
                     [dependencies]\ntouchdown.path = \"../touchdown\"\n\
                     # Not used, but so it is compiled as for this test, and that is done already.\n\
                     [dev-dependencies]\ntouchdown-build.path = {0:?}\n\n\
                     [build-dependencies]\ntouchdown-build.path = {0:?}\n",
                    env!("CARGO_MANIFEST_DIR")
                ),
            );
            write(&format!("{user}/build.rs"), &read(&source.join("build.rs")));
            write(&format!("{user}/src/lib.rs"), &read(&source.join("lib.rs")));
            write(
                &format!("{user}/tests/user.rs"),
                &read(&source.join("user.rs")),
            );
            for proto in protos(&source.join("proto")) {
                let path = proto.strip_prefix(&source).unwrap();
                write(&format!("{user}/{}", path.display()), &read(&proto));
            }
        }
        // Documented without build script, for which everything would have to be compiled once more.
        write(
            "documented/Cargo.toml",
            "[package]\nname = \"documented\"\nedition = \"2021\"\n\n\
             [dependencies]\ntouchdown.path = \"../touchdown\"\n",
        );
        write(
            "documented/src/lib.rs",
            "//! Documented.\npub mod generated;\n",
        );
        let mut builder = touchdown_build::Builder::new().include(source.join("proto"));
        for proto in protos(&source.join("proto")) {
            builder = builder.file(proto);
        }
        let generated = folder.join("documented/src/generated");
        let builder = builder.out_dir(generated).descriptors(true);
        builder.compile().unwrap();

        // The versions that are there already: no network is needed.
        for above in [".", ".."] {
            let lock = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(above)
                .join("Cargo.lock");
            if lock.exists() {
                write("Cargo.lock", &read(&lock));
            }
        }
        Fixture { folder }
    }

    fn cargo(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let output = Command::new(env!("CARGO"))
            .args(arguments)
            .arg("--offline")
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", self.folder.join("target"))
            // What was compiled for this test serves again. Before cargo 1.91 this does nothing.
            .env("CARGO_BUILD_BUILD_DIR", target)
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "cargo {arguments:?}:\n{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }
}

fn protos(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(protos(&path));
        } else {
            files.push(path);
        }
    }
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
