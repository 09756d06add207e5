//! The pages for people: links lead somewhere, no page is missing in the index, and README.md says what the code does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use touchdown::lifecycle::Plan;

/// Longer than this, README.md is no way in any more.
const LINES_OF_README: usize = 250;

/// Where pages are, beside those at the top.
const FOLDERS: [&str; 7] = [
    "benches", "crates", "cross", "deploy", "docs", "examples", "tests",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What is in a folder of the checkout, as paths below its top.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let mut all: Vec<_> = entries
        .map(|it| folder.join(it.unwrap().file_name()))
        .collect();
    all.sort();
    all
}

fn is_page(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "md")
}

/// Every page of the checkout.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> = entries(Path::new(""))
        .into_iter()
        .filter(|it| is_page(it))
        .collect();
    let mut folders: Vec<PathBuf> = FOLDERS.map(PathBuf::from).into();
    while let Some(folder) = folders.pop() {
        for entry in entries(&folder) {
            let is_foreign = entry.ends_with("target") || entry.ends_with("node_modules");
            if root().join(&entry).is_dir() && !is_foreign {
                folders.push(entry);
            } else if is_page(&entry) {
                pages.push(entry);
            }
        }
    }
    pages
}

/// The lines that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// Where the links of a line lead.
fn links(line: &str) -> Vec<String> {
    let plain: String = line.split('`').step_by(2).collect();
    let inline = plain.split("](").skip(1);
    let inline = inline.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()));
    let definition = plain
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]: "));
    let definition = definition.map(|(_, target)| target.to_owned());
    inline.chain(definition).collect()
}

/// The anchors that GitHub gives the headings of a page.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(text).filter(|it| it.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading
            .chars()
            .filter(|it| it.is_alphanumeric() || " -_".contains(*it));
        let anchor: String = kept.map(|it| if it == ' ' { '-' } else { it }).collect();
        let again = (1..).map(|number| format!("{anchor}-{number}"));
        let mut names = std::iter::once(anchor.clone()).chain(again);
        let free = names.find(|it| !anchors.contains(it));
        anchors.extend(free);
    }
    anchors
}

/// What is wrong with a link on a page, if anything is.
fn wrong(page: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (target, None),
    };
    let file = match path {
        "" => page.to_owned(),
        _ => page.parent().unwrap_or(Path::new("")).join(path),
    };
    let why = match anchor {
        _ if !root().join(&file).exists() => "no such file",
        Some(_) if !is_page(&file) => "an anchor in a file that is no page",
        Some(anchor) if !anchors(&read(&file)).contains(anchor) => "no such heading",
        _ => return None,
    };
    Some(format!("{}: {target}: {why}", page.display()))
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    let mut count = 0;
    for page in pages() {
        let text = read(&page);
        for target in prose(&text).flat_map(links) {
            count += 1;
            broken.extend(wrong(&page, &target));
        }
    }
    assert!(count > 100, "{count} links are not all that there are");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let text = "# Under `systemd`?\n\n# Twice\n\n# Twice\n\n```sh\n# [code](nowhere.md)\n```\n\n[a](b.md#c), [`d`](e) `[f](g)`\n";
    let names = ["twice", "twice-1", "under-systemd"];
    assert!(anchors(text).iter().eq(names), "{:?}", anchors(text));
    let found: Vec<_> = prose(text).flat_map(links).collect();
    assert_eq!(found, ["b.md#c", "e"]);
    assert_eq!(links("[`x`]: y.md"), ["y.md"]);

    let page = Path::new("docs/README.md");
    for good in [
        "doors.md",
        "doors.md#checks",
        "../README.md#licence",
        "https://nowhere",
        "#to-begin",
    ] {
        assert_eq!(wrong(page, good), None);
    }
    for bad in [
        "README.md#licence",
        "../doors.md",
        "../src/lib.rs#limits",
        "#nothing",
    ] {
        assert!(wrong(page, bad).is_some(), "{bad}");
    }
}

#[test]
fn the_readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(
        lines <= LINES_OF_README,
        "README.md has {lines} lines, and may have {LINES_OF_README}"
    );
}

#[test]
fn the_index_has_every_page() {
    let index = read("docs/README.md");
    let linked: BTreeSet<String> = prose(&index).flat_map(links).collect();
    for page in entries(Path::new("docs")).iter().filter(|it| is_page(it)) {
        let name = page.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            name == "README.md" || linked.contains(&name),
            "docs/README.md, the index, has no row for {name}"
        );
    }
}

#[test]
fn the_page_of_examples_has_every_example() {
    let page = read("docs/examples.md");
    let linked: BTreeSet<String> = prose(&page).flat_map(links).collect();
    for example in entries(Path::new("examples")) {
        let is_program = example.extension().is_some_and(|it| it == "rs")
            || root().join(&example).join("main.rs").exists()
            || root().join(&example).join("Cargo.toml").exists();
        let link = format!("../{}", example.display());
        assert!(
            !is_program || linked.contains(&link),
            "docs/examples.md has no row for {link}"
        );
    }
}

/// What stands below a heading of README.md, up to the next one of its level.
fn section<'t>(text: &'t str, heading: &str) -> &'t str {
    let start = format!("\n## {heading}\n");
    let (_, rest) = text
        .split_once(&start)
        .unwrap_or_else(|| panic!("no heading {heading:?}"));
    rest.split("\n## ").next().unwrap_or(rest)
}

/// The cells of all rows of tables.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let rows = text
        .lines()
        .filter_map(|it| it.strip_prefix("| ")?.strip_suffix('|'));
    rows.map(|row| row.split('|').map(str::trim).collect())
        .collect()
}

#[test]
fn the_readme_has_the_exit_codes_of_the_code() {
    let readme = read("README.md");
    let rows = rows(section(&readme, "Exit codes"));
    let written: BTreeSet<u8> = rows.iter().filter_map(|row| row[0].parse().ok()).collect();
    let source = read("src/lifecycle/report.rs");
    let constants = source
        .lines()
        .filter(|it| it.trim_start().starts_with("pub const "));
    let codes = constants.filter_map(|it| {
        it.split_once(": u8 = ")?
            .1
            .trim_end_matches(';')
            .parse()
            .ok()
    });
    let codes: BTreeSet<u8> = codes.collect();
    assert!(
        codes.contains(&0) && codes.len() > 3,
        "{codes:?} is not what there is"
    );
    assert_eq!(written, codes);
}

#[test]
fn the_readme_has_the_times_of_the_default_plan() {
    let readme = read("README.md");
    let rows = rows(section(&readme, "How it stops"));
    let plan = Plan::new();
    let times = [
        ("LameDuck", plan.lame_duck()),
        ("Draining", plan.grace_period()),
        ("Cancelling", plan.force_period()),
        ("Closing", plan.closing()),
    ];
    for (phase, time) in times {
        let row = rows.iter().find(|row| row[0] == phase);
        let written = row.and_then(|row| row.last().copied());
        assert_eq!(
            written,
            Some(format!("{} s", time.as_secs()).as_str()),
            "{phase}"
        );
    }
}

#[test]
fn the_readme_has_the_version_of_rust_that_is_needed() {
    let manifest = read("Cargo.toml");
    let (_, rest) = manifest.split_once("\nrust-version = \"").unwrap();
    let version = rest.split('"').next().unwrap();
    assert!(!version.is_empty());
    let readme = read("README.md");
    assert!(section(&readme, "Quick start").contains(&format!("Rust {version} or later")));
}

#[test]
fn the_readme_and_the_first_page_of_rustdoc_have_every_feature() {
    let manifest = read("Cargo.toml");
    let (_, features) = manifest.split_once("\n[features]\n").unwrap();
    let features = features.split("\n[").next().unwrap().lines();
    let features = features.filter_map(|it| Some(it.split_once(" = [")?.0));
    let features: BTreeSet<&str> = features.filter(|it| *it != "default").collect();
    assert!(
        features.contains("server") && features.len() > 3,
        "{features:?} is not what there is"
    );

    let readme = read("README.md");
    let lib = read("src/lib.rs").replace("//! ", "");
    let lib = lib.split_once("\n# Features\n").unwrap().1;
    let lib = lib.split("\n#").next().unwrap();
    for table in [rows(section(&readme, "Features")), rows(lib)] {
        let names = table
            .iter()
            .filter_map(|row| row[0].strip_prefix('`')?.strip_suffix('`'));
        assert_eq!(names.collect::<BTreeSet<_>>(), features);
    }
}
