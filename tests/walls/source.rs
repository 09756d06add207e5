//! Reads source files as the walls see them: code only, as words and as the paths that it names.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// A word of code, or a sign, and its line.
pub type Token = (usize, String);

/// A file of the tree, without comments, without what stands in strings, and without its tests.
pub struct Source {
    /// From the top of the tree, as in `src/lib.rs`.
    pub path: String,
    pub tokens: Vec<Token>,
    /// The numbers of the lines that have code on them.
    pub lines: Vec<usize>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let code = code(text);
        // The tests stand at the end, below the line that says when they are compiled.
        let tests = code.find("]\nmod tests {");
        let end = tests.map_or(code.len(), |it| code[..it].rfind('\n').unwrap_or(0));
        let code = &code[..end];
        let lines = code.lines().zip(1..).filter(|it| !it.0.trim().is_empty());
        let lines = lines.map(|it| it.1).collect();
        let (path, tokens) = (path.to_string(), tokens(code));
        Source {
            path,
            tokens,
            lines,
        }
    }

    /// The names of the module that the file is: `["lifecycle", "hooks"]`.
    pub fn module(&self) -> Vec<String> {
        let inside = self.path.split_once("src/").map_or("", |it| it.1);
        let name = inside.trim_end_matches(".rs").trim_end_matches("/mod");
        name.split('/').map(String::from).collect()
    }

    /// What the code defines, and whether that is for other rooms of the crate and for nobody else.
    pub fn definitions(&self) -> impl Iterator<Item = (bool, &str)> {
        let kinds = ["fn", "struct", "enum", "trait", "type", "const", "static"];
        self.tokens.windows(4).filter_map(move |it| {
            let is_inside = it[0].1 == "crate" && it[1].1 == ")";
            (kinds.contains(&&*it[2].1)).then_some((is_inside, &*it[3].1))
        })
    }

    /// The paths of the crate that the code names, from its top: `["lifecycle", "Hook"]`.
    pub fn paths(&self) -> Vec<(usize, Vec<String>)> {
        let mut found = Vec::new();
        let is = |at: usize, what: &str| self.tokens.get(at).is_some_and(|it| it.1 == what);
        // The modules in which this is, with the depth of their braces.
        let mut inside = vec![(0, self.module())];
        let (mut depth, mut at) = (0, 0);
        while let Some((_, word)) = self.tokens.get(at) {
            let within = &inside[inside.len() - 1].1;
            let mut base = match &**word {
                _ if !is(at + 1, "::") || at > 0 && is(at - 1, "::") => None,
                "crate" | "touchdown" => Some(Vec::new()),
                "self" => Some(within.clone()),
                "super" => Some(within[..within.len() - 1].to_vec()),
                _ => None,
            };
            while base.is_some() && is(at + 2, "super") {
                base.as_mut().map(Vec::pop);
                at += 2;
            }
            if let Some(base) = base {
                at = self.tree(at + 2, base, &mut found);
                continue;
            }
            if word == "{" {
                depth += 1;
                if at > 1 && is(at - 2, "mod") {
                    let name = self.tokens[at - 1].1.clone();
                    inside.push((depth, [within.clone(), vec![name]].concat()));
                }
            } else if word == "}" {
                if inside.len() > 1 && inside[inside.len() - 1].0 == depth {
                    inside.pop();
                }
                depth -= 1;
            }
            at += 1;
        }
        found
    }

    /// Follows what a `use` may have behind its first `::`, and says where it ends.
    fn tree(&self, at: usize, base: Vec<String>, found: &mut Vec<(usize, Vec<String>)>) -> usize {
        let Some((line, word)) = self.tokens.get(at) else {
            return at;
        };
        let is = |at: usize, what: &str| self.tokens.get(at).is_some_and(|it| it.1 == what);
        if word != "{" {
            let path = [base, vec![word.clone()]].concat();
            if is(at + 1, "::") {
                return self.tree(at + 2, path, found);
            }
            found.push((*line, path));
            return at + 1;
        }
        let mut at = at + 1;
        while at < self.tokens.len() && !is(at, "}") {
            at = self.tree(at, base.clone(), found);
            // What follows up to the comma is `as` and a name.
            while at < self.tokens.len() && !is(at, ",") && !is(at, "}") {
                at += 1;
            }
            at += usize::from(is(at, ","));
        }
        at + 1
    }
}

/// The sources of the library and of its companion crates. Files of tests are not among them.
pub fn sources() -> Vec<Source> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![top.join("src"), top.join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(top).unwrap().to_str().unwrap();
            if path.is_dir() {
                folders.push(path);
            } else if name.contains("src/")
                && [".rs", ".cc", ".h"].iter().any(|it| name.ends_with(it))
                && !name.ends_with("/tests.rs")
            {
                found.push(Source::new(name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 100, "only {} files", found.len());
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// What some room has for the crate's other rooms, by names that nothing else has.
pub fn names_inside(files: &[Source]) -> HashSet<&str> {
    let defined = || files.iter().flat_map(Source::definitions);
    let elsewhere: HashSet<_> = defined().filter(|it| !it.0).map(|it| it.1).collect();
    let inside = defined().filter(|it| it.0).map(|it| it.1);
    inside.filter(|it| !elsewhere.contains(it)).collect()
}

/// The text with spaces for comments and with quotation marks for what stands in quotation marks.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (length, filler) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), ' ')
        } else if rest.starts_with("/*") {
            (rest.find("*/").map_or(rest.len(), |it| it + 2), ' ')
        } else if first == '"' {
            (string(rest, 1), '"')
        } else if let Some(raw) = raw_string(rest, code.chars().next_back()) {
            (raw, '"')
        } else if first == '\'' && character(rest) > 0 {
            (character(rest), '"')
        } else {
            (first.len_utf8(), first)
        };
        let (part, after) = rest.split_at(length);
        code.extend(part.chars().map(|it| if it == '\n' { it } else { filler }));
        rest = after;
    }
    code
}

fn string(text: &str, from: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = from;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(text.len())
}

fn raw_string(text: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(is_of_word) && before != Some('b') {
        return None;
    }
    let marks = text.strip_prefix('r')?;
    let hashes = marks.len() - marks.trim_start_matches('#').len();
    marks[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let begin = hashes + 2;
    let length = text[begin..].find(&end)?;
    Some(begin + length + end.len())
}

/// How long the character literal is that begins here; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut inside = text[1..].char_indices();
    let from = match inside.next() {
        Some((_, '\\')) => 3,
        Some((_, first)) => 1 + first.len_utf8(),
        None => return 0,
    };
    match text.get(from..).and_then(|it| it.find('\'')) {
        Some(0) => from + 1,
        Some(end) if text[1..].starts_with('\\') && end < 10 => from + end + 1,
        _ => 0,
    }
}

fn is_of_word(it: char) -> bool {
    it == '_' || it.is_alphanumeric()
}

fn tokens(code: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    for (number, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if is_of_word(first) {
                rest.find(|it| !is_of_word(it)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            tokens.push((number + 1, rest[..length].to_string()));
            rest = rest[length..].trim_start();
        }
    }
    tokens
}
