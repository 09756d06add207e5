//! The macro that brings in generated code.

/// Brings in what `touchdown_build` has generated in build.rs: a module for each .proto file.
///
/// ```ignore
/// touchdown::include_protos!();
/// use greeter::{greeter_service, Greeter};
/// ```
///
/// Code for which [`out_dir`](https://docs.rs/touchdown-build/latest/touchdown_build/struct.Builder.html#method.out_dir)
/// was set is brought in by `include!` or `mod` instead.
#[macro_export]
macro_rules! include_protos {
    () => {
        include!(env!(
            "TOUCHDOWN_PROTOS",
            "no code was generated for `include_protos!`: this crate needs `touchdown-build` below \
             [build-dependencies] in its Cargo.toml, and beside it a build.rs with \
             `fn main() -> Result<(), touchdown_build::Error> { \
             touchdown_build::compile(&[\"proto/greeter.proto\"], &[\"proto\"]) }`"
        ));
    };
}
