//! Circles of imports between files.

use crate::source::Source;

/// Files of one room that import each other. A module and those inside it are no circle, nor is what goes through a file
/// that is `let_through`.
pub fn circles(files: &[Source], let_through: impl Fn(&str) -> bool) -> Vec<String> {
    let modules: Vec<_> = files.iter().map(Source::module).collect();
    let mut imports = vec![Vec::new(); files.len()];
    for (from, file) in files.iter().enumerate() {
        if let_through(&file.path) {
            continue;
        }
        for (line, path) in file.paths() {
            let is_it = |it: &usize| path.starts_with(&modules[*it]);
            let to = (0..files.len())
                .filter(is_it)
                .max_by_key(|it| modules[*it].len());
            let is_kin = |to: &usize| {
                modules[*to].starts_with(&modules[from]) || modules[from].starts_with(&modules[*to])
            };
            imports[from].extend(to.filter(|to| !is_kin(to)).map(|to| (to, line)));
        }
    }
    let mut found = Vec::new();
    for from in 0..files.len() {
        // What is reached from here, and by which import of this file.
        let mut reached: Vec<_> = imports[from].iter().map(|it| (it.0, *it)).collect();
        let mut next = 0;
        while let Some(&(at, by)) = reached.get(next) {
            for (to, _) in &imports[at] {
                if modules[*to][0] == modules[from][0] && !reached.iter().any(|it| it.0 == *to) {
                    reached.push((*to, by));
                }
            }
            next += 1;
        }
        if let Some((_, (to, line))) = reached.iter().find(|it| it.0 == from) {
            let (path, other) = (&files[from].path, &files[*to].path);
            found.push(format!(
                "{path}:{line}: a circle of imports through {other}"
            ));
        }
    }
    found
}
