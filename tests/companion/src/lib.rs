//! A log with a line for each call, refused and cut ones included: `ENDED|REFUSED METHOD CODE WHY KIND ...`.
//!
//! It is a companion of a server that uses nothing but what is public. Observers must not block, so the lines go to a
//! thread of their own, which writes them. If that falls behind, lines are left out, and their number is written.

use std::error::Error;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use touchdown::lifecycle::Hook;
use touchdown::{Call, CallEnd, CallObserver, CallRefusal, Companion, ServerBuilder, ServerHandle};

/// How many lines wait for the disk at the most.
const LINES: usize = 64 << 10;

/// Has the server write a line for each call, until it has stopped.
pub fn log_calls(builder: ServerBuilder, to: impl Write + Send + 'static) -> ServerBuilder {
    let (lines, written) = sync_channel(LINES);
    let log = Log(Arc::new((lines, AtomicU64::new(0))));
    let writer = thread::spawn(move || write(written, to));
    builder.observer(log.clone()).companion(Writer(log, writer))
}

/// Takes lines, and counts those that it has left out. `None` is the last.
#[derive(Clone)]
struct Log(Arc<(SyncSender<Option<String>>, AtomicU64)>);

impl Log {
    fn say(&self, line: String) {
        if self.0 .0.try_send(Some(line)).is_err() {
            self.0 .1.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl CallObserver for Log {
    fn ended(&self, call: &Call, end: &CallEnd) {
        let CallEnd {
            code,
            outcome,
            kind,
            waited,
            ran,
            received,
            sent,
            ..
        } = end;
        self.say(format!(
            "ENDED {} {code} {outcome:?} {kind:?} waited {waited:?} ran {ran:?} in {}/{} out {}/{}",
            call.method(),
            received.messages,
            received.bytes,
            sent.messages,
            sent.bytes
        ));
    }

    fn refused(&self, call: &Call, refusal: &CallRefusal) {
        let CallRefusal {
            code,
            reason,
            kind,
            waited,
            ..
        } = refusal;
        self.say(format!(
            "REFUSED {} {code} {reason:?} {kind:?} waited {waited:?}",
            call.method()
        ));
    }
}

fn write(lines: Receiver<Option<String>>, mut to: impl Write) -> io::Result<()> {
    let mut lines = lines.iter().map_while(|line| line);
    lines.try_for_each(|line| writeln!(to, "{line}"))?;
    to.flush()
}

/// Ends the log with the program: once the server is closed nothing is told any more.
struct Writer(Log, JoinHandle<io::Result<()>>);

impl Companion for Writer {
    fn started(self: Box<Self>, server: &ServerHandle) -> Result<(), Box<dyn Error + Send + Sync>> {
        let Writer(log, writer) = *self;
        let end = Hook::new("write the call log", move || {
            let (lines, left_out) = &*log.0;
            let left_out = left_out.load(Ordering::Relaxed);
            let note = (left_out > 0).then(|| format!("{left_out} lines were left out"));
            note.map_or(Ok(()), |it| lines.send(Some(it)))?;
            lines.send(None)?;
            Ok(writer.join().expect("the writer does not panic")?)
        });
        Ok(server.lifecycle().hook(end)?)
    }
}
