//! The child's part: the server that has everything.

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use touchdown::lifecycle::{self, Hook, Lifecycle, Plan, Report, Signals, StartupHook, Worker};
use touchdown::protobuf::well_known_types::wrappers::{StringValue, UInt32Value};
use touchdown::{
    Call, DetachedReplies, DrainPolicy, MethodName, Replies, Server, ServerBuilder, ServerHandle,
    Service, Status,
};

use super::script::{Fault, Reload, Script, Streams};
use crate::lifecycle_support::LIMIT;

pub const LOG: &str = "log";
pub const REPORT: &str = "report";
pub const SOCKET: &str = "socket";

/// What the log says once the process listens to signals.
pub const LISTENS: &str = "the first start-up hook runs";

/// What each hook and call takes.
const FEW_MS: Duration = Duration::from_millis(3);
const GRACE: Duration = Duration::from_millis(40);
/// Two signals come in that time.
const PATIENCE: Duration = Duration::from_secs(3);

type Done = Result<(), Box<dyn Error + Send + Sync>>;

pub fn hard_deadline(script: &Script) -> Duration {
    match (script.fault, script.streams) {
        (Fault::WalkHangs, _) | (_, Streams::Clogged) => Duration::from_millis(400),
        // No stop takes this long.
        _ => LIMIT / 2,
    }
}

/// Serves until it is stopped, reports, and exits as `main` does.
pub fn play(script: &Script, folder: &Path) -> ! {
    log_to(File::create(folder.join(LOG)).expect("the log"));
    match script.streams {
        Streams::Closed => close_input_and_output(),
        Streams::Full => fill_output(),
        _ => {}
    }
    let report = match script.has_workers {
        true => serve_with_workers(script, folder),
        false => serve(script, folder),
    };
    let json = report.to_json();
    let _ = match script.streams {
        Streams::Closed | Streams::ClosedLater => std::fs::write(folder.join(REPORT), json),
        _ => writeln!(io::stdout(), "\n{json}"),
    };
    std::process::exit(report.exit_code().into())
}

/// The log goes to the parent, and to standard error, which may not take it.
fn log_to(file: File) {
    struct Both(File);
    impl Write for Both {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.write_all(line)?;
            let _ = io::stderr().write_all(line);
            Ok(line.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }
    env_logger::Builder::new()
        .parse_filters("info,touchdown::core=off")
        .target(env_logger::Target::Pipe(Box::new(Both(file))))
        .init();
}

fn close_input_and_output() {
    let _ = io::stdout().flush();
    for number in [0, 1] {
        // SAFETY: they are open, and the process does not use them from here on.
        drop(unsafe { OwnedFd::from_raw_fd(number) });
    }
}

/// The test harness has written to its output already, and would not have begun otherwise.
fn fill_output() {
    let _ = io::stdout().flush();
    // SAFETY: it is open, and who writes to it from here on finds what has its number then.
    drop(unsafe { OwnedFd::from_raw_fd(1) });
    let full = File::options().write(true).open("/dev/full").unwrap();
    assert_eq!(full.into_raw_fd(), 1);
}

fn serve(script: &Script, folder: &Path) -> Report {
    server(folder).lifecycle(lifecycle(script)).serve()
}

fn lifecycle(script: &Script) -> lifecycle::Builder {
    let mut builder = Lifecycle::builder().plan(plan(script));
    for hook in startup_hooks(script) {
        builder = builder.startup(hook);
    }
    for hook in closing_hooks(script) {
        builder = builder.hook(hook);
    }
    builder.on_reload("config", reload(script))
}

fn serve_with_workers(script: &Script, folder: &Path) -> Report {
    let lifecycle = lifecycle(script).signals(Signals::process()).build();
    let lifecycle = lifecycle.expect("it can be built");
    match start(&lifecycle, folder) {
        Ok(_server) => lifecycle.wait(),
        Err(error) => {
            // Says nothing if a stop has begun.
            lifecycle.fail(error);
            lifecycle.wait()
        }
    }
}

fn start(lifecycle: &Lifecycle, folder: &Path) -> Result<ServerHandle, Box<dyn Error>> {
    lifecycle.start()?;
    let workers = lifecycle.workers("pump");
    let poll = Worker::new("poll", |token| {
        while !token.wait_timeout(FEW_MS) {}
        thread::sleep(FEW_MS);
    });
    let flush = Worker::new("flush", |token| token.wait()).until_closing();
    workers.spawn(poll)?;
    workers.spawn(flush)?;
    let server = server(folder).start_with(lifecycle)?;
    lifecycle.ready()?;
    Ok(server)
}

fn plan(script: &Script) -> Plan {
    let (grace, force) = match script.is_patient && script.fault != Fault::WalkHangs {
        true => (PATIENCE, PATIENCE),
        false => (GRACE, Duration::from_millis(20)),
    };
    Plan::new()
        .with_lame_duck(Duration::from_millis(10))
        .with_grace_period(grace)
        .with_force_period(force)
        .with_closing(Duration::from_millis(200))
        .with_hard_deadline(hard_deadline(script))
}

fn startup_hooks(script: &Script) -> [StartupHook; 2] {
    let (fault, streams) = (script.fault, script.streams);
    let first = StartupHook::new("first", move || {
        log::info!("{LISTENS}");
        if streams == Streams::ClosedLater {
            close_input_and_output();
        }
        thread::sleep(FEW_MS);
        Ok(())
    });
    let second = StartupHook::new("second", move || {
        thread::sleep(FEW_MS);
        match fault {
            Fault::StartFails => Err("no such file".into()),
            Fault::StartPanics => panic!("in the second start-up hook"),
            Fault::StartOverruns => {
                // Done after all, and so undone.
                thread::sleep(10 * FEW_MS);
                Ok(())
            }
            _ => Ok(()),
        }
    });
    let second = match fault {
        Fault::StartOverruns => second.time_limit(2 * FEW_MS),
        _ => second,
    };
    let undo_first = move || {
        thread::sleep(FEW_MS);
        match fault {
            Fault::UndoFails => Err("busy".into()),
            _ => Ok(()),
        }
    };
    let undo_second = || {
        thread::sleep(FEW_MS);
        Ok(())
    };
    [
        first.undo(undo_first),
        second.after("first").undo(undo_second),
    ]
}

fn closing_hooks(script: &Script) -> [Hook; 2] {
    let fault = script.fault;
    let journal = Hook::new("journal", move || {
        thread::sleep(FEW_MS);
        match fault {
            Fault::ClosingFails => Err("disk full".into()),
            Fault::ClosingPanics => panic!("in a closing hook"),
            Fault::ClosingOverruns => hang(),
            _ => Ok(()),
        }
    });
    let journal = match fault {
        Fault::ClosingOverruns => journal.time_limit(3 * FEW_MS),
        _ => journal,
    };
    let registry = Hook::new("registry", || {
        thread::sleep(FEW_MS);
        Ok(())
    });
    [journal, registry.after("journal")]
}

/// Is not let go.
struct Clings;

impl Drop for Clings {
    fn drop(&mut self) {
        hang()
    }
}

fn reload(script: &Script) -> impl FnMut() -> Done + Send + 'static {
    let reload = script.reload;
    let clings = match script.fault {
        Fault::WalkHangs => Some(Clings),
        _ => None,
    };
    move || {
        let _held = &clings;
        thread::sleep(FEW_MS);
        match reload {
            Reload::Done => Ok(()),
            Reload::Fails => Err("no such file".into()),
            Reload::Panics => panic!("in a reload"),
            Reload::Hangs => hang(),
        }
    }
}

const SUBSCRIBE: MethodName = MethodName::new("test.Streams", "Subscribe");

fn server(folder: &Path) -> ServerBuilder {
    let calls = Service::builder("test.Echo")
        .unary("Say", |call: &Call, request: StringValue| {
            match request.value.as_str() {
                "endless" => hang(),
                "told" => call.token().wait(),
                _ => thread::sleep(FEW_MS),
            }
            Ok(request)
        })
        .unary("Ask", |_: &Call, request: StringValue| {
            thread::sleep(FEW_MS);
            Ok(request)
        })
        .build()
        .policy(MethodName::new("test.Echo", "Ask"), DrainPolicy::CutEarly);
    let streams = Service::builder("test.Streams")
        .server_streaming("Subscribe", subscribed())
        .server_streaming("Follow", subscribed())
        .build();
    let goodbye = GRACE / 4;
    Server::builder()
        .address(format!("unix:{}", folder.join(SOCKET).display()))
        .service(calls)
        .service(streams.policy(SUBSCRIBE, DrainPolicy::Stream { goodbye }))
}

/// Keeps the streams, and does nothing with them.
fn subscribed(
) -> impl Fn(&Call, UInt32Value, Replies<UInt32Value>) -> Result<(), Status> + Send + Sync + 'static
{
    // Not in the closure, which the calls keep: who would let go of whom?
    static ALL: Mutex<Vec<DetachedReplies<UInt32Value>>> = Mutex::new(Vec::new());
    |_, _, replies| {
        ALL.lock().unwrap().push(replies.detach());
        Ok(())
    }
}

fn hang() -> ! {
    loop {
        thread::park();
    }
}
