//! Keeps what is logged, for tests of the words.

use std::sync::Mutex;

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Notebook(Mutex<Vec<(Level, String)>>);

static NOTEBOOK: Notebook = Notebook(Mutex::new(Vec::new()));

impl Log for Notebook {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn log(&self, record: &Record<'_>) {
        let line = (record.level(), record.args().to_string());
        self.0.lock().unwrap().push(line);
    }
    fn flush(&self) {}
}

/// From now on what is logged is kept. The tests of a program share the notebook.
pub fn keep_the_log() {
    if log::set_logger(&NOTEBOOK).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
}

/// The lines of which this is true.
pub fn lines_that(wanted: impl Fn(Level, &str) -> bool) -> Vec<(Level, String)> {
    let lines = NOTEBOOK.0.lock().unwrap();
    let found = lines.iter().filter(|(level, line)| wanted(*level, line));
    found.cloned().collect()
}
