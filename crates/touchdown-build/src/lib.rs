//! Generates Rust from `.proto` files for a `touchdown` server or client, in a build script: messages,
//! blocking service traits and typed clients. It needs no `protoc` and no other program.
//!
//! # When to use
//!
//! In `build.rs` of every crate that serves or calls gRPC with `touchdown`. For messages without `touchdown`,
//! use `protobuf-codegen`, which makes them here as well. For code on tonic, use `tonic-build`.
//!
//! # Quick example
//!
//! Cargo.toml:
//!
//! ```toml
//! [dependencies]
//! touchdown = "0.1"
//!
//! [build-dependencies]
//! touchdown-build = "0.1"
//! ```
//!
//! build.rs:
//!
//! ```no_run
//! fn main() -> Result<(), touchdown_build::Error> {
//!     touchdown_build::compile(&["proto/greeter.proto"], &["proto"])
//! }
//! ```
//!
//! src/main.rs:
//!
//! ```ignore
//! touchdown::include_protos!();
//!
//! use greeter::{greeter_service, Greeter, HelloReply, HelloRequest};
//! use touchdown::{Call, Status};
//!
//! struct Polite;
//!
//! impl Greeter for Polite {
//!     fn say_hello(&self, _: &Call, request: HelloRequest) -> Result<HelloReply, Status> {
//!         let text = format!("Hello, {}!", request.name);
//!         Ok(HelloReply { text, ..Default::default() })
//!     }
//! }
//! ```
//!
//! # What is generated
//!
//! For each `.proto` file, given or imported, a module by the name of the file: `proto/greeter.proto` becomes
//! `greeter`, wherever its folder or package. Files of the same name get their folder in front, so
//! `a/common.proto` and `b/common.proto` become `a_common` and `b_common`. In a module there are
//!
//! - the messages and enums, as `protobuf-codegen` makes them for the `protobuf` crate, which they are used
//!   through as `touchdown::protobuf`: its trait `Message` encodes and decodes them. What is nested in
//!   `message Outer` is in the module `outer`;
//! - for `service Greeter`, the trait `Greeter` for the server to implement, with a method for each method;
//!   it is implemented for `Arc<T>` as well, so a shared implementation can be served;
//! - `greeter_service`, which makes a `touchdown::Service` of an implementation;
//! - `greeter_methods`, a module of constants: `SERVICE`, the name of the service for `touchdown::Health`, and a
//!   `touchdown::MethodName` for each method, such as `SAY_HELLO`, for `Service::policy`;
//! - `GreeterClient`, with two methods for each method: `say_hello`, and `say_hello_with`, which takes
//!   `CallOptions`.
//!
//! | method | in the trait, beside `&self` and `&Call` | in the client |
//! |---|---|---|
//! | `rpc M(Q) returns (R)` | takes a `Q`, returns an `R` | takes a `&Q`, returns an `R` |
//! | `rpc M(Q) returns (stream R)` | takes a `Q` and `Replies<R>` | takes a `&Q`, returns `Replies<R>` |
//! | `rpc M(stream Q) returns (R)` | takes `Requests<Q>`, returns an `R` | returns an `Upload<Q, R>` |
//! | `rpc M(stream Q) returns (stream R)` | takes `Requests<Q>` and `Replies<R>` | returns `Requests<Q>` and `Replies<R>` |
//!
//! Methods are in snake case. A name that is reserved in Rust gets an underscore behind it: `type_`; so do
//! the methods `New` and `Clone`, for a client has functions of these names. On the wire, everything keeps
//! the name that it has in the `.proto` file.
//!
//! The type of a oneof is called as the oneof, with a capital letter: `oneof kind` is `Kind`. If a message or
//! an enum beside it has that name, it is `KindOneOf`. A field gets an underscore behind it if its name, or
//! that of one of its methods, is taken: by a field before it, such as `has_x` behind `x` in proto2, or by
//! what every message has, such as `special_fields` or the function `new`. Reflection, JSON and the text
//! format keep the names of the `.proto` file.
//!
//! Extensions are constants in the module `exts`; those that are declared in `message Outer` are in
//! `exts::outer`. Files without reflection have none.
//!
//! Comments become documentation, changed only so far that `rustdoc` does not take an example in them for a
//! test, or a bracket for a link. A service or method with `option deprecated = true` is `#[deprecated]`.
//! A method with an `option idempotency_level` of `NO_SIDE_EFFECTS` or `IDEMPOTENT` gets the policy
//! `touchdown::DrainPolicy::CutEarly`: in a drain it may be ended early, for its caller to retry elsewhere.
//!
//! `google/protobuf/*.proto` need not be on disk; their types are those of
//! `touchdown::protobuf::well_known_types` and `touchdown::protobuf::descriptor`.
//!
//! With [`Builder::descriptors`] there is the constant `FILE_DESCRIPTOR_SET` beside the modules: what the files
//! describe, encoded, for a server that tells its callers about its services by reflection. Without it nothing of that is
//! in the program.
//!
//! # When a `.proto` file is broken
//!
//! The build fails and shows the place:
//!
//! ```text
//! Error: proto/greeter.proto:6:16: name 'HelloRequst' is not defined
//!     |
//!   6 |   rpc SayHello(HelloRequst) returns (HelloReply);
//!     |                ^
//! ```
//!
//! # Limits
//!
//! - Messages are used through `touchdown::protobuf`, well-known types through
//!   `touchdown::protobuf::well_known_types`. The crate with the generated code depends on `touchdown`, by
//!   this name, even if it has messages alone; it needs no dependency on `protobuf`.
//! - proto2 and proto3, not yet editions: neither the compiler of `.proto` files nor the runtime knows them.
//! - Groups of proto2 have no fields, and reflection does not see them. What a message has of them, or of
//!   groups that it does not know, is kept when it is written again. Cargo shows a warning for each group, and
//!   for each extension that gets no constant.
//! - Two things that get the same name in Rust although they differ in the `.proto` file are an error, which
//!   says what to rename, unless one is a oneof or a field: the methods `GetIt` and `get_it`, the values
//!   `type` and `type_` of an enum, a `message GreeterClient` beside `service Greeter`.
//! - A file with reflection cannot import one with `option optimize_for = LITE_RUNTIME`.
//! - Reflection sees a file that was renamed, like `a/common.proto` above, under its new name,
//!   `a_common.proto`.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod descriptors;
mod docs;
mod error;
mod extensions;
mod file;
mod generate;
mod groups;
mod messages;
mod modules;
mod names;
mod output;
mod parse;
mod renames;
mod scope;
mod services;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

pub use crate::error::Error;

/// Generates messages, traits and clients of `files` into `$OUT_DIR/touchdown`, from where
/// `touchdown::include_protos!()` takes them.
///
/// `includes` are the folders that `import` statements start from; each file must be in one of them, or
/// deeper. Relative paths start from the folder of the package, in a build script. [`Builder`] does the same
/// with more to set.
///
/// # Errors
///
/// If a file is missing or broken, if two names collide in Rust, or if the output cannot be written. See
/// [`Error`].
///
/// # Examples
///
/// ```no_run
/// fn main() -> Result<(), touchdown_build::Error> {
///     touchdown_build::compile(&["proto/greeter.proto", "proto/admin.proto"], &["proto"])
/// }
/// ```
pub fn compile(files: &[impl AsRef<Path>], includes: &[impl AsRef<Path>]) -> Result<(), Error> {
    let mut builder = Builder::new();
    for file in files {
        builder = builder.file(file);
    }
    for include in includes {
        builder = builder.include(include);
    }
    builder.compile()
}

/// What to generate, and how.
///
/// # Examples
///
/// A server for a board with little memory, which calls nobody:
///
/// ```no_run
/// fn main() -> Result<(), touchdown_build::Error> {
///     touchdown_build::Builder::new()
///         .file("proto/greeter.proto")
///         .include("proto")
///         .client(false)
///         .lite(true)
///         .compile()
/// }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is generated before `compile` is called"]
pub struct Builder {
    files: Vec<PathBuf>,
    includes: Vec<PathBuf>,
    out_dir: Option<PathBuf>,
    lite: bool,
    client: bool,
    server: bool,
    descriptors: bool,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// Without files; once it has some, it generates both halves of their services, into
    /// `$OUT_DIR/touchdown`.
    pub fn new() -> Builder {
        Builder {
            files: Vec::new(),
            includes: Vec::new(),
            out_dir: None,
            lite: false,
            client: true,
            server: true,
            descriptors: false,
        }
    }

    /// Adds a `.proto` file to generate code for. What it imports need not be added.
    pub fn file(mut self, file: impl AsRef<Path>) -> Builder {
        self.files.push(file.as_ref().to_owned());
        self
    }

    /// Adds a folder that `import` statements start from. Where several have a file, the first one counts.
    ///
    /// Without any, the folders of the files are taken.
    pub fn include(mut self, folder: impl AsRef<Path>) -> Builder {
        self.includes.push(folder.as_ref().to_owned());
        self
    }

    /// Writes into `folder` instead of `$OUT_DIR/touchdown`. It is made if it is not there; files in it that
    /// are not generated are left alone.
    ///
    /// Include its `mod.rs` with `include!`, or, if it is below `src`, with `mod`.
    pub fn out_dir(mut self, folder: impl AsRef<Path>) -> Builder {
        self.out_dir = Some(folder.as_ref().to_owned());
        self
    }

    /// Whether messages do without reflection. Without it they have no text format, no JSON and no
    /// `Display`, no constants for extensions, and make a smaller program. By default they have it, except in files with
    /// `option optimize_for = LITE_RUNTIME`.
    pub fn lite(mut self, lite: bool) -> Builder {
        self.lite = lite;
        self
    }

    /// Whether clients are generated; they are by default.
    pub fn client(mut self, client: bool) -> Builder {
        self.client = client;
        self
    }

    /// Whether traits and the functions that make services are generated; they are by default.
    pub fn server(mut self, server: bool) -> Builder {
        self.server = server;
        self
    }

    /// Whether there is a constant beside the modules, `FILE_DESCRIPTOR_SET: &[u8]`: a `google.protobuf.FileDescriptorSet` of
    /// all files with everything that they import, each after its imports, without comments. It is what `protoc` writes
    /// with `--include_imports --descriptor_set_out`. By default there is none, and the program holds nothing of it.
    ///
    /// It is for server reflection, such as that of `touchdown-observe`:
    ///
    /// ```ignore
    /// touchdown::include_protos!();
    ///
    /// let reflection = Reflection::new().descriptors(FILE_DESCRIPTOR_SET);
    /// ```
    ///
    /// In it everything has the name that it has in the `.proto` files, and files the one by which they are imported,
    /// whatever the modules are called, with [`lite`](Self::lite) messages, too.
    pub fn descriptors(mut self, descriptors: bool) -> Builder {
        self.descriptors = descriptors;
        self
    }

    /// Generates the code.
    ///
    /// Tells cargo, on the standard output, to run the build script again when one of the files changes that
    /// were read, and where `touchdown::include_protos!` finds the code. Groups, and extensions that no code is
    /// generated for, are named in warnings. A generated file that would be as it was is not written, so that
    /// it is not compiled again.
    ///
    /// # Errors
    ///
    /// If there is no file to generate code for, if one is missing or broken, if two names collide in Rust, or
    /// if the output cannot be written. See [`Error`].
    pub fn compile(self) -> Result<(), Error> {
        let parsed = parse::parse(&self.files, &self.includes)?;
        let is_included = self.out_dir.is_none();
        let folder = match self.out_dir {
            Some(folder) => folder,
            None => match env::var_os("OUT_DIR") {
                Some(folder) => Path::new(&folder).join("touchdown"),
                None => {
                    return Err(Error::new(
                        "the environment variable OUT_DIR, which cargo sets for build scripts, is not set, \
                         and no `out_dir` was given",
                    ))
                }
            },
        };
        let cannot_write =
            |error| Error::new(format!("cannot write in `{}`: {error}", folder.display()));
        fs::create_dir_all(&folder).map_err(cannot_write)?;
        let scratch = tempfile::tempdir_in(&folder).map_err(cannot_write)?;
        let options = file::Options {
            lite: self.lite,
            client: self.client,
            server: self.server,
            descriptors: self.descriptors,
        };
        let generated = generate::generate(parsed, &options, scratch.path())?;
        output::write(&generated, &folder)?;
        for warning in &generated.warnings {
            println!("cargo:warning={warning}");
        }
        if is_included {
            // By this `include_protos!` finds the code, and knows whether there is any.
            let index = folder.join("mod.rs");
            println!("cargo:rustc-env=TOUCHDOWN_PROTOS={}", index.display());
        }
        Ok(())
    }
}
