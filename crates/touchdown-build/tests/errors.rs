//! What a person reads when the build fails: the text names the file, the line, the column, and the cause.

use std::fs;

use tempfile::TempDir;
use touchdown_build::{Builder, Error};

/// A folder with these files in it, of which the first is compiled.
struct Case {
    folder: TempDir,
    first: String,
}

fn case(files: &[(&str, &str)]) -> Case {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    Case {
        folder,
        first: files[0].0.to_owned(),
    }
}

impl Case {
    fn builder(&self) -> Builder {
        Builder::new()
            .file(self.folder.path().join(&self.first))
            .include(self.folder.path())
            .out_dir(self.folder.path().join("out"))
    }

    /// The text of the error, with paths from the folder on.
    fn text(&self, result: Result<(), Error>) -> String {
        let error = result.expect_err("this must not compile");
        let text = error.to_string();
        // What a build script's `main` prints is `Debug`.
        assert_eq!(format!("{error:?}"), text);
        text.replace(&format!("{}/", self.folder.path().display()), "")
    }

    fn error(&self) -> String {
        self.text(self.builder().compile())
    }
}

#[track_caller]
fn assert_error(files: &[(&str, &str)], start: &str) {
    let text = case(files).error();
    assert!(text.starts_with(start), "{text}");
}

#[test]
fn an_error_shows_file_line_column_and_the_line_itself() {
    let proto = "syntax = \"proto3\";\n\nservice Greeter {\n\trpc Say(Helo) returns (Helo);\n}\n";
    assert_eq!(
        case(&[("greeter.proto", proto)]).error(),
        "greeter.proto:4:10: name 'Helo' is not defined\n   |\n 4 | \trpc Say(Helo) returns (Helo);\n   | \t        ^"
    );
}

#[test]
fn a_well_known_type_without_its_import_is_told_which_import_it_is() {
    for name in ["Empty", "google.protobuf.Empty"] {
        let proto = format!(
            "syntax = \"proto3\";\npackage p;\nmessage M {{}}\nservice S {{\n  rpc Get({name}) returns (M);\n}}\n"
        );
        let text = case(&[("a.proto", &proto)]).error();
        let start = format!("a.proto:5:11: name '{name}' is not defined\n");
        assert!(text.starts_with(&start), "{text}");
        let help = "help: write `google.protobuf.Empty`, with `import \"google/protobuf/empty.proto\";` at the head of \
                    the file";
        assert!(text.contains(help), "{text}");
    }
    // Imported, and not written with its package.
    let proto = "syntax = \"proto3\";\nimport \"google/protobuf/timestamp.proto\";\nmessage M { Timestamp at = 1; }\n";
    let text = case(&[("a.proto", proto)]).error();
    assert!(
        text.contains("help: write `google.protobuf.Timestamp`, with"),
        "{text}"
    );
}

#[test]
fn syntax_errors_have_a_place() {
    assert_error(
        &[(
            "a.proto",
            "syntax = \"proto3\";\nmessage M {\n  string name 1;\n}\n",
        )],
        "a.proto:3:15: expected ",
    );
    assert_error(
        &[("a.proto", "syntax = \"proto4\";\n")],
        "a.proto:1:10: unknown syntax 'proto4'",
    );
}

#[test]
fn an_error_in_an_import_is_shown_there() {
    assert_error(
        &[
            ("a.proto", "syntax = \"proto3\";\nimport \"sub/b.proto\";\n"),
            ("sub/b.proto", "syntax = \"proto3\";\n  mesage M {}\n"),
        ],
        "sub/b.proto:2:3: expected ",
    );
}

#[test]
fn a_missing_import_is_shown_with_the_folders_that_were_looked_in() {
    let text = case(&[("a.proto", "syntax = \"proto3\";\n\nimport \"b.proto\";\n")]).error();
    assert!(
        text.starts_with("a.proto:3:1: import 'b.proto' not found\n"),
        "{text}"
    );
    assert!(text.contains("include folders: `"), "{text}");
}

#[test]
fn an_import_cycle_is_named() {
    let text = case(&[
        ("a.proto", "syntax = \"proto3\";\nimport \"b.proto\";\n"),
        ("b.proto", "syntax = \"proto3\";\nimport \"a.proto\";\n"),
    ])
    .error();
    assert!(
        text.contains("import cycle detected: a.proto -> b.proto -> a.proto"),
        "{text}"
    );
}

#[test]
fn names_defined_twice_are_shown_at_the_second() {
    assert_error(
        &[(
            "a.proto",
            "syntax = \"proto3\";\nmessage M {}\nmessage M {}\n",
        )],
        "a.proto:3:9: name 'M' is defined twice",
    );
    assert_error(
        &[(
            "a.proto",
            "syntax = \"proto3\";\nmessage Greeter {}\nservice Greeter {}\n",
        )],
        "a.proto:3:9: name 'Greeter' is defined twice",
    );
}

#[test]
fn a_method_of_an_enum_is_refused() {
    assert_error(
        &[(
            "a.proto",
            "syntax = \"proto3\";\nenum E { A = 0; }\nservice S { rpc M(E) returns (E); }\n",
        )],
        "a.proto:3:19: 'E' is not a message type",
    );
}

#[test]
fn methods_that_are_one_in_snake_case_are_refused() {
    let proto = "syntax = \"proto3\";\nmessage M {}\nservice S {\n  rpc GetIt(M) returns (M);\n  rpc get_it(M) returns (M);\n}\n";
    assert_error(
        &[("a.proto", proto)],
        "a.proto:5:7: the methods `GetIt` and `get_it` of the service `S` would both be called `get_it` in Rust",
    );
}

#[test]
fn names_that_are_one_in_rust_are_refused() {
    let client = "syntax = \"proto3\";\nmessage GreeterClient {}\nservice Greeter {}\n";
    let case = case(&[("a.proto", client)]);
    let text = case.error();
    assert!(
        text.starts_with(
            "a.proto:3:9: the client of the service `Greeter` and the message `GreeterClient` would both be \
             called `GreeterClient` in Rust; rename one of them"
        ),
        "{text}"
    );
    // There is none then to collide with.
    case.builder().client(false).compile().unwrap();

    assert_error(
        &[(
            "a.proto",
            "syntax = \"proto3\";\nmessage greeter {}\nservice Greeter {}\n",
        )],
        "a.proto:3:9: the trait of the service `Greeter` and the message `greeter`",
    );
    assert_error(
        &[(
            "a.proto",
            "syntax = \"proto3\";\nmessage GreeterMethods { message M {} }\nservice Greeter {}\n",
        )],
        "a.proto:3:9: the module for the names of the methods of the service `Greeter` and the module for what is nested \
         in the message `GreeterMethods` would both be called `greeter_methods` in Rust",
    );
    assert_error(
        &[(
            "a.proto",
            "syntax = \"proto3\";\nmessage Foo {}\nmessage foo {}\n",
        )],
        "a.proto:3:9: the message `foo` and the message `Foo`",
    );
    assert_error(
        &[(
            "a.proto",
            "syntax = \"proto3\";\nenum E {\n  type = 0;\n  type_ = 1;\n}\n",
        )],
        "a.proto:4:3: the value `type_` and the value `type` would both be called `type_` in Rust",
    );
    // What is renamed instead is in clashes.proto.
}

#[test]
fn a_message_with_the_name_of_the_module_for_extensions_is_refused() {
    let exts = "message Exts {\n  message Inner {}\n  extensions 1;\n}\n";
    let top = format!("syntax = \"proto2\";\n{exts}extend Exts {{ optional int32 a = 1; }}\n");
    assert_error(
        &[("a.proto", &top)],
        "a.proto:6:30: the module for extensions and the module for what is nested in the message `Exts` would both be \
         called `exts` in Rust; rename one of them",
    );
    let nested = format!(
        "syntax = \"proto2\";\n{exts}message M {{ extend Exts {{ optional int32 a = 1; }} }}\n"
    );
    let case = case(&[("a.proto", &nested)]);
    assert!(case.error().contains("the module for extensions and"));
    case.builder().lite(true).compile().unwrap();
}

#[test]
fn editions_are_refused_with_the_reason() {
    let proto = "// A file.\n\n/* Of an\n edition. */ edition = \"2023\";\nmessage M {}\n";
    let text = case(&[("a.proto", proto)]).error();
    assert!(
        text.starts_with(
            "a.proto:4:14: `edition = \"2023\"`: editions are not supported, for neither the compiler of .proto files"
        ),
        "{text}"
    );
    assert!(
        text.contains("\n 4 |  edition. */ edition = \"2023\";\n"),
        "{text}"
    );
    assert!(text.contains("help: on the wire, edition 2023"), "{text}");
    assert_error(
        &[
            ("a.proto", "syntax = \"proto3\";\nimport \"b.proto\";\n"),
            ("b.proto", "\u{feff}edition=\"2024\";\n"),
        ],
        "b.proto:1:2: `edition=\"2024\"`: editions are not supported",
    );
}

#[test]
fn types_that_the_generator_cannot_name_are_refused() {
    let proto = "syntax = \"proto3\";\nimport \"google/protobuf/type.proto\";\nmessage M {\n  \
                 repeated google.protobuf.Field.Kind kinds = 1;\n}\n";
    assert_error(
        &[("a.proto", proto)],
        "a.proto:4:39: the generator of messages (protobuf-codegen 3.7) has no name for the type \
         `google.protobuf.Field.Kind`; an `int32` is the same on the wire",
    );
}

#[test]
fn messages_with_reflection_cannot_hold_messages_without() {
    let case = case(&[
        (
            "a.proto",
            "syntax = \"proto3\";\nimport \"b.proto\";\nmessage A { B b = 1; }\n",
        ),
        (
            "b.proto",
            "syntax = \"proto3\";\noption optimize_for = LITE_RUNTIME;\nmessage B {}\n",
        ),
    ]);
    let text = case.error();
    assert!(
        text.starts_with("a.proto:2:1: `b.proto` has `option optimize_for = LITE_RUNTIME`, and this file has not"),
        "{text}"
    );
    case.builder().lite(true).compile().unwrap();
}

#[test]
fn files_that_are_one_module_are_refused() {
    let case = case(&[
        ("a-b.proto", "syntax = \"proto3\";\nimport \"a_b.proto\";\n"),
        ("a_b.proto", "syntax = \"proto3\";\n"),
    ]);
    assert_eq!(
        case.error(),
        "the files a-b.proto, a_b.proto would all become the module `a_b`; rename one of them"
    );
}

#[test]
fn a_missing_file_is_named() {
    let case = case(&[("a.proto", "")]);
    let text = case.text(case.builder().file("proto/gone.proto").compile());
    assert!(
        text.starts_with("proto/gone.proto: no such file (the current folder is `/"),
        "{text}"
    );
}

#[test]
fn a_file_outside_of_the_include_folders_is_named() {
    let case = case(&[("a.proto", ""), ("sub/b.proto", "")]);
    let text = case.text(
        Builder::new()
            .file(case.folder.path().join("a.proto"))
            .include(case.folder.path().join("sub"))
            .compile(),
    );
    assert!(
        text.starts_with("a.proto: the file is in none of the include folders: `sub`"),
        "{text}"
    );
}

#[test]
fn a_file_hidden_by_another_include_folder_is_named() {
    let case = case(&[("b/a.proto", ""), ("a/a.proto", "")]);
    let text = case.text(
        Builder::new()
            .file(case.folder.path().join("b/a.proto"))
            .include(case.folder.path().join("a"))
            .include(case.folder.path().join("b"))
            .compile(),
    );
    assert_eq!(
        text,
        "b/a.proto: the file is hidden by `a/a.proto`, which comes first in the include folders"
    );
}

#[test]
fn a_missing_include_folder_is_named() {
    let case = case(&[("a.proto", "")]);
    let text = case.text(case.builder().include("protos").compile());
    assert!(
        text.starts_with("the include folder `protos` does not exist"),
        "{text}"
    );
}

#[test]
fn no_file_at_all_is_an_error() {
    let none: [&str; 0] = [];
    let error = touchdown_build::compile(&none, &["."]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no .proto file was given to generate code for"
    );
}

#[test]
fn a_file_that_is_not_text_is_named() {
    let case = case(&[("a.proto", "")]);
    fs::write(case.folder.path().join("a.proto"), b"\xff\xfe").unwrap();
    let text = case.error();
    assert_eq!(text, "a.proto: file 'a.proto' is not valid utf-8");
}

#[test]
fn an_output_folder_that_cannot_be_written_is_named() {
    let case = case(&[("a.proto", ""), ("out", "a file")]);
    let text = case.error();
    assert!(text.starts_with("cannot write in `out`: "), "{text}");
}
