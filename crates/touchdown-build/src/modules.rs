//! Which module a file becomes.

use std::collections::BTreeMap;

use crate::{names, Error};

/// The module in the `protobuf` crate that has the code of a file, if one has.
pub(crate) fn protobuf_module(file: &str) -> Option<String> {
    const WELL_KNOWN: &[&str] = &[
        "any",
        "api",
        "duration",
        "empty",
        "field_mask",
        "source_context",
        "struct",
        "timestamp",
        "type",
        "wrappers",
    ];
    let stem = file
        .strip_prefix("google/protobuf/")?
        .strip_suffix(".proto")?;
    if stem == "descriptor" {
        Some("::touchdown::protobuf::descriptor".to_owned())
    } else if WELL_KNOWN.contains(&stem) {
        let module = names::well_known_module(stem);
        Some(format!("::touchdown::protobuf::well_known_types::{module}"))
    } else {
        None
    }
}

/// Gives each file a module: its stem, and where several files have the same one, as many of the folders
/// before it as tell them apart.
pub(crate) fn module_names<'a>(
    files: impl Iterator<Item = &'a str>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut folders: BTreeMap<&str, usize> = files.map(|file| (file, 0)).collect();
    loop {
        let mut by_module: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (&file, &count) in &folders {
            let module = names::file_module(file, count).expect("there are so many folders");
            by_module.entry(module).or_default().push(file);
        }
        let mut unique = true;
        for (module, files) in &by_module {
            if files.len() < 2 {
                continue;
            }
            unique = false;
            let mut longer = false;
            for file in files {
                let count = folders.get_mut(file).expect("it is from there");
                if names::file_module(file, *count + 1).is_some() {
                    *count += 1;
                    longer = true;
                }
            }
            if !longer {
                return Err(Error::new(format!(
                    "the files {} would all become the module `{module}`; rename one of them",
                    files.join(", ")
                )));
            }
        }
        if unique {
            return Ok(by_module
                .into_iter()
                .map(|(module, files)| (files[0].to_owned(), module))
                .collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(files: &[&str]) -> Vec<(String, String)> {
        module_names(files.iter().copied())
            .unwrap()
            .into_iter()
            .collect()
    }

    #[test]
    fn files_of_the_same_name_are_told_apart_by_their_folders() {
        let pairs = modules(&[
            "a/x.proto",
            "b/x.proto",
            "y/v1/z.proto",
            "w/v1/z.proto",
            "c.proto",
        ]);
        let pairs: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (&a[..], &b[..])).collect();
        assert_eq!(
            pairs,
            [
                ("a/x.proto", "a_x"),
                ("b/x.proto", "b_x"),
                ("c.proto", "c"),
                ("w/v1/z.proto", "w_v1_z"),
                ("y/v1/z.proto", "y_v1_z"),
            ]
        );
        assert_eq!(modules(&["x.proto", "b/x.proto"])[1].1, "x");
        assert_eq!(modules(&["x.proto", "b/x.proto"])[0].1, "b_x");
        assert!(module_names(["a-b.proto", "a_b.proto"].into_iter()).is_err());
    }
}
