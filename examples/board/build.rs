fn main() -> Result<(), touchdown_build::Error> {
    touchdown_build::compile(&["proto/board.proto"], &["proto"])
}
