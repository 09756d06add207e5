//! Compiles what the engine needs in C++ against the headers of grpcio-sys.
//! Without the feature `server` there is nothing to do and no compiler is asked for.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "server")]
    {
        // Documentation is not linked, and where it is built there may be no sources of C-core to compile against.
        println!("cargo:rerun-if-env-changed=DOCS_RS");
        if std::env::var_os("DOCS_RS").is_none() {
            shim::compile()?;
        }
        let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
        touchdown_build::Builder::new()
            .file("proto/health.proto")
            .out_dir(out.join("health"))
            .client(false)
            .server(false)
            .lite(true)
            .compile()?;
        #[cfg(feature = "admin")]
        touchdown_build::Builder::new()
            .file("proto/admin.proto")
            .out_dir(out.join("admin"))
            .lite(true)
            .compile()?;
        // For the examples and tests, which a published package does not contain.
        if std::path::Path::new("proto/greeter.proto").exists() {
            let files = [
                "proto/greeter.proto",
                "proto/ledger.proto",
                "proto/meter.proto",
                "proto/news.proto",
                "proto/room.proto",
            ];
            touchdown_build::compile(&files, &["proto"])?;
        }
    }
    Ok(())
}

#[cfg(feature = "server")]
mod shim {
    use std::env;
    use std::error::Error;
    use std::fs;
    use std::path::{Path, PathBuf};

    /// The exact version in Cargo.toml: the shim uses internals of C-core, which
    /// are no more stable than that.
    const GRPCIO_SYS: &str = "grpcio-sys-0.13.0+1.56.2-patched";

    pub fn compile() -> Result<(), Box<dyn Error>> {
        const FOLDER: &str = "src/engine/cc";
        const SOURCES: [&str; 18] = [
            "connection.cc",
            "connection_drain.cc",
            "connection_end.cc",
            "connection_guard.cc",
            "connection_traffic.cc",
            "core_thread.cc",
            "corking.cc",
            "event_engine.cc",
            "filters.cc",
            "headers.cc",
            "hpack.cc",
            "messages.cc",
            "messages_debug.cc",
            "messages_release.cc",
            "shim.cc",
            "threads.cc",
            "tls.cc",
            "turn.cc",
        ];
        const WITHOUT_CLIENT: &str = "without_client.cc";
        // Also when a header has changed: cargo looks at all that is in the folder.
        println!("cargo:rerun-if-changed={FOLDER}");
        let folder = Path::new(FOLDER);
        println!("cargo:rerun-if-env-changed=TOUCHDOWN_GRPCIO_SYS");
        let core = headers()?.join("grpc");
        let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
        mend_hpack_parser(&core, &out)?;
        let mut build = cc::Build::new();
        if cfg!(feature = "client") {
            build.define("TOUCHDOWN_CLIENT", None);
        } else {
            build.file(folder.join(WITHOUT_CLIENT));
        }
        build
            .cpp(true)
            // No -std: like C-core's own build this takes the compiler's default, which
            // decides what `absl::string_view` is.
            // Small inline functions must not be emitted: see the head of shim.cc.
            .opt_level(2)
            .warnings(false)
            // See the head of shim.cc. zig's compiler sets it by itself.
            .flag("-UNDEBUG")
            .flag("-include")
            .flag(folder.join("without_traces.h"))
            // See cross/toolchain.cmake. Nothing here writes to `std::cout`.
            .define("__ioinit", "*__ioinit")
            .include(&core)
            .include(core.join("include"))
            .include(core.join("third_party/abseil-cpp"))
            .include(core.join("third_party/upb"))
            .include(core.join("src/core/ext/upb-generated"))
            .include(&out)
            .files(SOURCES.map(|it| folder.join(it)))
            .try_compile("touchdown_shim")?;
        Ok(())
    }

    /// Writes C-core's file as it is to be: see `hpack.cc`.
    fn mend_hpack_parser(core: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
        const CHANGES: [[&str; 2]; 4] = [
            [
                "    std::vector<uint8_t> output;\n",
                // The shortest codes have five bits. (RFC 7541, appendix B)
                "    std::vector<uint8_t> output;\n    \
                 output.reserve(std::min<size_t>(length, input->remaining()) * 8 / 5);\n",
            ],
            [
                "    state_.frame_length = 0;\n",
                "    state_.frame_length = 0;\n    \
                 if (is_call_faulty) {\n      \
                 metadata_buffer_->Set(GrpcRetryPushbackMsMetadata(), touchdown::kFaulty);\n      \
                 state_.frame_error = HpackParseResult();\n    }\n",
            ],
            [
                "  ParseInputInner(&input);\n",
                "  ParseInputInner(&input);\n  \
                 const bool is_call_faulty = state_.frame_error.stream_error() && \
                 metadata_buffer_ != nullptr && !log_info_.is_client;\n",
            ],
            [
                "    return state_.frame_error.Materialize();\n",
                "    return is_call_faulty ? absl::OkStatus() : state_.frame_error.Materialize();\n",
            ],
        ];
        let path = core.join("src/core/ext/transport/chttp2/transport/hpack_parser.cc");
        let mut source = fs::read_to_string(path)?;
        for [before, after] in CHANGES {
            if source.matches(before).count() != 1 {
                return Err(format!("touchdown: {GRPCIO_SYS} has another hpack_parser.cc").into());
            }
            source = source.replace(before, after);
        }
        fs::write(out.join("hpack_parser_mended.cc"), source)?;
        Ok(())
    }

    /// Cargo tells a build script nothing about the sources of a dependency that
    /// has no `links` key, so this looks where cargo keeps them.
    fn headers() -> Result<PathBuf, String> {
        if let Some(folder) = env::var_os("TOUCHDOWN_GRPCIO_SYS") {
            return Ok(folder.into());
        }
        let mut tried = Vec::new();
        for folder in candidates() {
            if folder.join("grpc/src/core/lib/surface/server.h").exists() {
                return Ok(folder);
            }
            tried.push(folder.display().to_string());
        }
        Err(format!(
            "touchdown: the sources of {GRPCIO_SYS} were not found; set TOUCHDOWN_GRPCIO_SYS \
             to the folder that `cargo metadata` names as its manifest's. Looked in:\n  {}",
            tried.join("\n  ")
        ))
    }

    fn candidates() -> Vec<PathBuf> {
        let mut folders = Vec::new();
        let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
        // From a registry or a vendored folder, the two are neighbours.
        if let Some(parent) = manifest.parent() {
            folders.push(parent.join(GRPCIO_SYS));
            folders.push(parent.join("grpcio-sys"));
        }
        let home = env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
        let registries = home.map(|home| home.join("registry/src"));
        folders.extend(
            registries
                .iter()
                .flat_map(|it| children(it))
                .map(|it| it.join(GRPCIO_SYS)),
        );
        // A workspace with its own vendored sources: look upwards from the build folder.
        let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
        folders.extend(out.ancestors().map(|it| it.join("vendor/grpcio-sys")));
        folders
    }

    fn children(folder: &Path) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(folder) else {
            return Vec::new();
        };
        entries.flatten().map(|it| it.path()).collect()
    }
}
