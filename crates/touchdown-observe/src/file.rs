//! Metrics in a file, for node_exporter's textfile collector.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use touchdown::lifecycle::{Hook, Lifecycle, Worker};

use crate::Metrics;

/// Whether the file can be kept.
pub(crate) fn validate(
    file: &Option<(PathBuf, Duration)>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let Some((path, every)) = file else {
        return Ok(());
    };
    if path.extension().is_none_or(|it| it != "prom") {
        let why = "must end with .prom: node_exporter leaves other files out";
        return Err(format!("the file for metrics is {}, and {why}", path.display()).into());
    }
    if *every < Duration::from_secs(1) {
        return Err(
            format!("metrics are to be written every {every:?}, and may be every second").into(),
        );
    }
    let folder = path
        .parent()
        .filter(|it| !it.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    match folder.is_dir() {
        true => Ok(()),
        false => Err(format!(
            "there is no folder {} for the file with metrics",
            folder.display()
        )
        .into()),
    }
}

/// Writes the file until the program has stopped.
pub(crate) fn keep(
    lifecycle: &Lifecycle,
    metrics: Metrics,
    path: PathBuf,
    every: Duration,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (last, of_last) = (metrics.clone(), path.clone());
    lifecycle.hook(Hook::new("metrics file", move || {
        Ok(write(&of_last, &last.text())?)
    }))?;
    let mut failed = false;
    let worker = Worker::new("metrics file", move |token| loop {
        match write(&path, &metrics.text()) {
            // Once, until it works again: a full disk is full for long.
            Err(error) if !failed => {
                failed = true;
                log::warn!("cannot write metrics to {}: {error}", path.display());
            }
            result => failed &= result.is_err(),
        }
        if token.wait_timeout(every) {
            return;
        }
    });
    lifecycle.workers("observe").spawn(worker)?;
    Ok(())
}

/// Replaces the file at once.
fn write(path: &Path, text: &str) -> io::Result<()> {
    // Another suffix, so that the collector leaves it out.
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let result = fs::write(&new, text).and_then(|()| fs::rename(&new, path));
    if result.is_err() {
        let _ = fs::remove_file(&new);
    }
    result
}
