//! The command line of the examples.

use std::process;

/// The words after the program's name. `--help` prints the usage, and ends the program.
pub fn words(usage: &str) -> Vec<String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|it| it == "--help") {
        println!("{usage}");
        process::exit(0);
    }
    words
}

/// The program was called as it cannot be.
pub fn wrong(usage: &str) -> ! {
    eprintln!("{usage}");
    process::exit(2);
}
