//! From paths of `.proto` files to checked descriptors, by `protox`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use miette::Diagnostic;
use protobuf::descriptor::FileDescriptorSet;
use protobuf::Message;
use protox::file::{File, FileResolver, GoogleFileResolver, IncludeFileResolver};

use crate::Error;

/// What was read.
pub(crate) struct Parsed {
    /// Every file and everything it imports, imports first.
    pub(crate) files: FileDescriptorSet,
    /// Where each file is, by the name that an `import` has for it. Bundled files are not here.
    pub(crate) paths: BTreeMap<String, PathBuf>,
}

/// Reads and checks `files` and everything that they import.
pub(crate) fn parse(files: &[PathBuf], includes: &[PathBuf]) -> Result<Parsed, Error> {
    if files.is_empty() {
        return Err(Error::new("no .proto file was given to generate code for"));
    }
    for include in includes {
        if !include.is_dir() {
            return Err(Error::new(format!(
                "the include folder `{}` does not exist (the current folder is `{}`)",
                include.display(),
                current_folder()
            )));
        }
    }
    let includes = if includes.is_empty() {
        folders_of(files)
    } else {
        includes.to_vec()
    };

    let paths = Rc::new(RefCell::new(BTreeMap::new()));
    let mut compiler = protox::Compiler::with_file_resolver(Resolver {
        includes: includes.clone(),
        bundled: GoogleFileResolver::new(),
        paths: Rc::clone(&paths),
    });
    compiler.include_imports(true).include_source_info(true);
    for file in files {
        let name = import_name(file, &includes)?;
        if let Err(error) = compiler.open_file(&name) {
            tell_cargo(&paths.borrow());
            if let Some(error) = edition(&error, &paths.borrow()) {
                return Err(error);
            }
            return Err(readable(&error, &paths.borrow(), &includes));
        }
    }
    tell_cargo(&paths.borrow());

    let files = FileDescriptorSet::parse_from_bytes(&compiler.encode_file_descriptor_set())
        .map_err(|error| Error::new(format!("cannot decode the compiled descriptors: {error}")))?;
    for file in &files.file {
        if !matches!(file.syntax(), "" | "proto2" | "proto3") {
            let path = paths.borrow().get(file.name()).cloned();
            return Err(Error::at(
                &path.unwrap_or_else(|| file.name().into()),
                1,
                1,
                "only the syntaxes \"proto2\" and \"proto3\" can be generated",
            ));
        }
    }
    let paths = paths.borrow().clone();
    Ok(Parsed { files, paths })
}

/// Has cargo run the build script again when one of the files changes.
fn tell_cargo(paths: &BTreeMap<String, PathBuf>) {
    for path in paths.values() {
        println!("cargo:rerun-if-changed={}", path.display());
    }
}

/// Looks for files in the include folders first, then among those that come with the compiler, and takes
/// down which file was found where, even if it turns out to be broken.
struct Resolver {
    includes: Vec<PathBuf>,
    bundled: GoogleFileResolver,
    paths: Rc<RefCell<BTreeMap<String, PathBuf>>>,
}

impl FileResolver for Resolver {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        match find(name, &self.includes) {
            Some(path) => {
                self.paths
                    .borrow_mut()
                    .insert(name.to_owned(), path.clone());
                // protoc ignores a byte order mark, which protox takes for a token.
                match std::fs::read_to_string(&path) {
                    Ok(text) if text.starts_with('\u{feff}') => {
                        File::from_source(name, &text['\u{feff}'.len_utf8()..])
                    }
                    _ => File::open(name, &path),
                }
            }
            None => self.bundled.open_file(name),
        }
    }
}

fn find(name: &str, includes: &[PathBuf]) -> Option<PathBuf> {
    includes
        .iter()
        .map(|include| include.join(name))
        .find(|path| path.is_file())
}

fn folders_of(files: &[PathBuf]) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for file in files {
        let folder = match file.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// The name by which other files import `file`: its path below an include folder.
fn import_name(file: &Path, includes: &[PathBuf]) -> Result<String, Error> {
    if !file.is_file() {
        // Like protoc, take a path that begins in an include folder.
        let name = file.to_string_lossy().replace('\\', "/");
        if file.is_relative() && find(&name, includes).is_some() {
            return Ok(name);
        }
        return Err(Error::new(format!(
            "{}: no such file (the current folder is `{}`; include folders: {})",
            file.display(),
            current_folder(),
            list(includes)
        )));
    }
    let name = includes
        .iter()
        .find_map(|include| {
            let lexical = IncludeFileResolver::new(std::path::absolute(include).ok()?);
            lexical
                .resolve_path(&std::path::absolute(file).ok()?)
                .or_else(|| {
                    let real = IncludeFileResolver::new(include.canonicalize().ok()?);
                    real.resolve_path(&file.canonicalize().ok()?)
                })
        })
        .ok_or_else(|| {
            Error::new(format!(
                "{}: the file is in none of the include folders: {}",
                file.display(),
                list(includes)
            ))
            .with_help("add the folder that its imports start from with `include`")
        })?;
    match find(&name, includes) {
        Some(found) if found.canonicalize().ok() != file.canonicalize().ok() => {
            Err(Error::new(format!(
                "{}: the file is hidden by `{}`, which comes first in the include folders",
                file.display(),
                found.display()
            )))
        }
        _ => Ok(name),
    }
}

/// What to say if a file is not understood because it is of an edition, for which protox has no words.
fn edition(error: &protox::Error, paths: &BTreeMap<String, PathBuf>) -> Option<Error> {
    let path = paths.get(error.file()?)?;
    let source = std::fs::read_to_string(path).ok()?;
    let place = first_statement(&source);
    let statement = &source[place..];
    let after = statement.strip_prefix("edition")?;
    if !after.trim_start().starts_with('=') {
        return None;
    }
    let end = statement.find([';', '\n']).unwrap_or(statement.len());
    let line_start = source[..place].rfind('\n').map_or(0, |end| end + 1);
    let line = source[..place].matches('\n').count() + 1;
    let column = source[line_start..place].chars().count() + 1;
    let message = format!(
        "`{}`: editions are not supported, for neither the compiler of .proto files (protox 0.10) nor the runtime \
         (protobuf 3.7) knows their features; only `syntax = \"proto2\"` and `syntax = \"proto3\"` can be generated",
        statement[..end].trim_end()
    );
    let error = Error::at(path, line, column, &message);
    Some(error.with_help(
        "on the wire, edition 2023 without options is `syntax = \"proto3\"` with `optional` before each field that is \
         neither repeated nor a map nor in a oneof",
    ))
}

/// Where in a `.proto` file the first thing is that is neither space nor comment.
fn first_statement(source: &str) -> usize {
    let mut rest = source.trim_start_matches('\u{feff}');
    loop {
        rest = rest.trim_start();
        let end = if rest.starts_with("//") {
            rest.find('\n')
        } else if rest.starts_with("/*") {
            rest.find("*/").map(|end| end + 2)
        } else {
            break;
        };
        rest = &rest[end.unwrap_or(rest.len())..];
    }
    source.len() - rest.len()
}

/// Makes a readable text of what the compiler says, with the path of the file instead of its import name.
fn readable(
    error: &protox::Error,
    paths: &BTreeMap<String, PathBuf>,
    includes: &[PathBuf],
) -> Error {
    // `Debug` is `file:line:column: message`, where the place is known; `Display` the message alone.
    let text = format!("{error:?}");
    let place = error.file().and_then(|name| {
        let mut rest = text.strip_prefix(name)?.strip_prefix(':')?.splitn(3, ':');
        let path = paths.get(name)?;
        let line: usize = rest.next()?.parse().ok()?;
        let column: usize = rest.next()?.parse().ok()?;
        Some((path, line, column, rest.next()?.trim_start()))
    });
    let mut readable = match (place, error.file().and_then(|name| paths.get(name))) {
        (Some((path, line, column, message)), _) => Error::at(path, line, column, message),
        (None, Some(path)) => Error::new(format!("{}: {error}", path.display())),
        (None, None) => Error::new(text.as_str()),
    };
    if error.is_file_not_found() {
        readable = readable.with_help(&format!("include folders: {}", list(includes)));
    }
    if let Some(help) = well_known(&text) {
        readable = readable.with_help(&help);
    } else if let Some(help) = error.help() {
        readable = readable.with_help(&help.to_string());
    }
    readable
}

/// What to do about a name that is not defined and is that of a well-known type.
fn well_known(error: &str) -> Option<String> {
    let (_, rest) = error.split_once("name '")?;
    let (name, _) = rest.split_once("' is not defined")?;
    let short = name.rsplit('.').next()?;
    let (file, _) = WELL_KNOWN.iter().find(|it| it.1.contains(&short))?;
    Some(format!(
        "write `google.protobuf.{short}`, with `import \"google/protobuf/{file}.proto\";` at the head of the file; it \
         need not be on disk"
    ))
}

/// The types of `google/protobuf/*.proto`, by file.
const WELL_KNOWN: [(&str, &[&str]); 8] = [
    ("any", &["Any"]),
    ("duration", &["Duration"]),
    ("empty", &["Empty"]),
    ("field_mask", &["FieldMask"]),
    ("source_context", &["SourceContext"]),
    ("struct", &["Struct", "Value", "ListValue", "NullValue"]),
    ("timestamp", &["Timestamp"]),
    (
        "wrappers",
        &[
            "BoolValue",
            "BytesValue",
            "DoubleValue",
            "FloatValue",
            "Int32Value",
            "Int64Value",
            "StringValue",
            "UInt32Value",
            "UInt64Value",
        ],
    ),
];

fn list(folders: &[PathBuf]) -> String {
    let folders: Vec<String> = folders
        .iter()
        .map(|folder| format!("`{}`", folder.display()))
        .collect();
    folders.join(", ")
}

fn current_folder() -> String {
    std::env::current_dir()
        .map(|folder| folder.display().to_string())
        .unwrap_or_else(|error| error.to_string())
}
