//! What the compiler says where `include_protos!` finds nothing.

use std::fs;
use std::process::Command;

/// Compiles a crate that has the macro, and calls it. The variable is what touchdown-build tells cargo.
fn compile(name: &str, protos: Option<&str>) -> (bool, String) {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "#[path = \"{}/src/include_protos.rs\"]\nmod include_protos;\ninclude_protos!();\n",
        env!("CARGO_MANIFEST_DIR")
    );
    fs::write(folder.join("lib.rs"), text).unwrap();
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command
        .args([
            "--crate-type=lib",
            "--emit=metadata",
            "--edition=2021",
            "lib.rs",
        ])
        .current_dir(&folder)
        .env_remove("TOUCHDOWN_PROTOS");
    if let Some(text) = protos {
        let file = folder.join("protos.rs");
        fs::write(&file, text).unwrap();
        command.env("TOUCHDOWN_PROTOS", file);
    }
    let output = command.output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), words)
}

#[test]
fn a_crate_without_build_script_is_told_what_it_needs() {
    let (compiles, words) = compile("without_build_script", None);
    assert!(!compiles);
    for part in [
        "no code was generated for `include_protos!`",
        "`touchdown-build` below [build-dependencies] in its Cargo.toml",
        "a build.rs with",
        "touchdown_build::compile(",
    ] {
        assert!(words.contains(part), "{part:?} is not in {words}");
    }
    assert!(!words.contains("OUT_DIR"), "{words}");
}

#[test]
fn what_was_generated_is_brought_in() {
    let (compiles, words) = compile("with_build_script", Some("pub mod greeter {}"));
    assert!(compiles, "{words}");
}
