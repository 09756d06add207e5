//! Writes the module tree of the library: every model over the real sources, and over copies of them
//! with a bug seeded. See src/lib.rs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "models.rs"]
mod models;

use models::{Bug, Model, MODELS};

fn main() {
    let here = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap());
    let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap());
    let sources = here.join("../../src").canonicalize().unwrap();
    for watched in [&here.join("models.rs"), &here.join("build.rs"), &sources] {
        println!("cargo::rerun-if-changed={}", watched.display());
    }
    // The sources name it, and it is off here.
    println!("cargo::rustc-check-cfg=cfg(feature, values(\"server\"))");

    let mut tree = String::new();
    for model in MODELS {
        let scenarios = here.join("scenarios").join(format!("{}.rs", model.name));
        let folder = sources.join(model.folder);
        writeln!(tree, "pub mod {} {{", model.name).unwrap();
        match model.seam {
            None => tree += &variant("real", model, &folder, &scenarios),
            // The same source against another seam needs a copy as well.
            Some(_) => {
                let copy = out.join(model.name).join("real");
                copy_sources(model, None, &folder, &copy);
                tree += &variant("real", model, &copy, &scenarios);
            }
        }
        for bug in model.bugs {
            let copy = out.join(model.name).join(bug.name);
            copy_sources(model, Some(bug), &folder, &copy);
            tree += &variant(bug.name, model, &copy, &scenarios);
        }
        tree += "}\n";
    }
    fs::write(out.join("models.rs"), tree).unwrap();
}

/// A module with the sources in `folder` and the scenarios beside them, so that the scenarios can name
/// what is `pub(super)` there.
fn variant(name: &str, model: &Model, folder: &Path, scenarios: &Path) -> String {
    let mut text = format!("#[allow(unused, clippy::all)]\npub mod {name} {{\n");
    for module in model.modules {
        let file = folder.join(format!("{module}.rs"));
        let module = if *module == "mod" {
            model.folder
        } else {
            module
        };
        writeln!(text, "#[path = {file:?}]\npub mod {module};").unwrap();
    }
    writeln!(text, "#[path = {scenarios:?}]\npub mod scenarios;\n}}").unwrap();
    text
}

fn copy_sources(model: &Model, bug: Option<&Bug>, from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let mut seeded = false;
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let Some(file) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let module = file.trim_end_matches(".rs");
        let whole_folder = model.modules.contains(&"mod");
        if !path.is_file() || !(whole_folder || model.modules.contains(&module)) {
            continue;
        }
        let mut text = fs::read_to_string(&path).unwrap();
        if let Some(seam) = model.seam {
            text = replaced(&text, "use crate::sync::", &format!("use {seam}::"), file);
        }
        if let Some(bug) = bug.filter(|bug| bug.file == file) {
            for (right, wrong) in bug.edits {
                text = replaced(&text, right, wrong, file);
            }
            seeded = true;
        }
        fs::write(to.join(file), text).unwrap();
    }
    if let Some(bug) = bug {
        assert!(seeded, "bug {}: there is no file {}", bug.name, bug.file);
    }
}

/// A bug that cannot be seeded any more must not pass for one that was found.
fn replaced(text: &str, right: &str, wrong: &str, file: &str) -> String {
    let count = text.matches(right).count();
    assert!(
        count == 1,
        "{file} has {count} times, instead of once, the text\n{right}\nAdapt tests/models/models.rs."
    );
    text.replace(right, wrong)
}
