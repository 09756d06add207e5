//! What systemd is told of a server: calls left, a watchdog that sees whether it polls, sockets to keep.
#![cfg(all(feature = "client", feature = "systemd"))]

mod common;
mod lifecycle_support;
mod notify_support;
mod thread_support;

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use common::{channel_to, echo, eventually, say as call, unary, LONG};
use lifecycle_support::{bound, is_child, role, say, Process};
use notify_support::{extension_of, order, Manager};
use thread_support::{threads, Stopped};
use touchdown::client::Client;
use touchdown::lifecycle::{exit_code, Plan, Signals};
use touchdown::systemd::EXTENSION;
use touchdown::{Server, ServerBuilder, Service, ServingStatus, Upgrade};

fn builder(service: Service) -> ServerBuilder {
    Server::builder()
        .address("127.0.0.1:0")
        .signals(Signals::process())
        .service(service)
        .systemd()
}

fn serve(server: Server) -> ! {
    say(&format!("address {}", server.address()));
    std::process::exit(server.wait().exit_code().into())
}

/// Where the child listens.
fn address_of(child: &mut Process) -> String {
    let line = child.hear("address");
    line.strip_prefix("address ").unwrap().to_owned()
}

fn client_of(child: &mut Process) -> Client {
    Client::new(&channel_to(&address_of(child)))
}

/// Waits until a message says this.
fn hear_of(manager: &Manager, line: &str) -> Vec<String> {
    let mut told = std::iter::repeat_with(|| manager.hear());
    told.find(|it| it.iter().any(|it| it.starts_with(line)))
        .unwrap()
}

#[test]
fn a_drain_is_told_with_the_number_of_calls() {
    let test = "a_drain_is_told_with_the_number_of_calls";
    if is_child() {
        // Each call waits for a line.
        let service = unary(|_, request| {
            say("begun");
            order();
            Ok(request)
        });
        let plan = Plan::new().with_grace_period(Duration::from_secs(50));
        serve(builder(service).plan(plan).start().unwrap());
    }
    let _bound = bound();
    let manager = Manager::new();
    let mut child = manager.start(test);
    let client = client_of(&mut child);
    let calls: Vec<_> = ["one", "two"]
        .map(|what| {
            let client = client.clone();
            thread::spawn(move || call(&client, what).unwrap())
        })
        .into_iter()
        .collect();
    calls.iter().for_each(|_| drop(child.hear("begun")));
    manager.expect(&["STATUS=starting"]);
    manager.expect(&["READY=1", "STATUS=serving"]);
    child.signal("TERM");
    manager.expect_extended(&["STOPPING=1", "STATUS=stopping: SIGTERM"]);
    let drain = manager.expect_status("draining: 2 calls left, ");
    assert_eq!(drain, Some(EXTENSION));
    child.tell("one is done");
    let progress = hear_of(&manager, "STATUS=draining: 1 call left, ");
    assert_eq!(extension_of(&progress), Some(EXTENSION));
    child.tell("the other is done");
    hear_of(&manager, "STATUS=closing");
    hear_of(&manager, "STATUS=stopped: SIGTERM");
    calls.into_iter().for_each(|it| drop(it.join().unwrap()));
    assert_eq!(child.end().code, Some(i32::from(exit_code::CLEAN)));
}

#[test]
fn a_server_that_cannot_listen_says_so_and_is_never_ready() {
    if is_child() {
        let report = builder(echo()).address("unix:/nowhere/at/all.sock").serve();
        std::process::exit(report.exit_code().into());
    }
    let _bound = bound();
    let manager = Manager::new();
    let child = manager.start("a_server_that_cannot_listen_says_so_and_is_never_ready");
    manager.expect(&["STATUS=starting"]);
    let message = manager.hear();
    let why = "start failed: cannot listen at unix:/nowhere/at/all.sock: ";
    assert_eq!(message[0], "STOPPING=1");
    assert!(
        message[1].starts_with(&format!("STATUS=stopping: {why}")),
        "{message:?}"
    );
    manager.expect_status("closing");
    manager.expect_status(&format!("stopped: {why}"));
    assert_eq!(child.end().code, Some(i32::from(exit_code::FAILED_START)));
}

#[test]
fn the_watchdog_is_fed_with_every_worker_blocked_and_with_a_health_that_is_bad() {
    let test = "the_watchdog_is_fed_with_every_worker_blocked_and_with_a_health_that_is_bad";
    if is_child() {
        let service = unary(|_, request| {
            say("begun");
            order();
            Ok(request)
        });
        let server = builder(service).workers(1).backlog(0).start().unwrap();
        server.health().set("", ServingStatus::NotServing);
        serve(server);
    }
    let _bound = bound();
    let manager = Manager::new();
    let mut child = watched(&manager, test, 100);
    let client = client_of(&mut child);
    let blocked = thread::spawn(move || call(&client, "hello"));
    child.hear("begun");
    hear_of(&manager, "READY=1");
    manager.rest();
    manager.expect_fed(10);
    child.tell("go on");
    assert_eq!(blocked.join().unwrap().unwrap(), "hello");
    child.signal("TERM");
    hear_of(&manager, "STATUS=stopped: SIGTERM");
}

/// A child with a watchdog of so many milliseconds.
fn watched(manager: &Manager, test: &str, milliseconds: u32) -> Process {
    let mut command = manager.command("1", test);
    command.env("WATCHDOG_USEC", (milliseconds * 1000).to_string());
    Process::spawn(command)
}

#[test]
fn the_watchdog_is_not_fed_while_all_that_poll_hang() {
    const INTERVAL: u32 = 400;
    let test = "the_watchdog_is_not_fed_while_all_that_poll_hang";
    if is_child() {
        serve(builder(echo()).start().unwrap());
    }
    let _bound = bound();
    let manager = Manager::new();
    let mut child = watched(&manager, test, INTERVAL);
    let client = client_of(&mut child);
    call(&client, "hello").unwrap();
    hear_of(&manager, "READY=1");
    manager.expect_fed(3);

    let pollers = threads(child.id(), "td-worker");
    assert!(!pollers.is_empty());
    let stopped: Result<Vec<Stopped>, _> = pollers.into_iter().map(Stopped::stop).collect();
    let stopped = match stopped {
        Ok(stopped) => stopped,
        Err(error) => {
            eprintln!("{test}: skipped, since ptrace(2) is not to be had here: {error}");
            return child.signal("KILL");
        }
    };
    // What was answered before, of which one message may be on its way; and then there is nothing, however
    // long one waits.
    manager.rest();
    let long = Duration::from_millis((4 * INTERVAL).into());
    manager.socket.set_read_timeout(Some(long)).unwrap();
    let late: Vec<_> = std::iter::from_fn(|| manager.try_hear()).take(2).collect();
    assert!(late.len() <= 1, "{late:?}");

    // It was that, and nothing else.
    drop(stopped);
    manager.socket.set_read_timeout(Some(LONG)).unwrap();
    manager.expect_fed(3);
    call(&client, "hello").unwrap();
    child.signal("TERM");
    hear_of(&manager, "STATUS=stopped: SIGTERM");
}

/// What a message brought with it: systemd would store it.
fn hear_with_descriptor(manager: &Manager) -> (Vec<String>, Option<OwnedFd>) {
    let mut buffer = [0_u8; 4096];
    let mut control = [0_u64; 16];
    let mut parts = [IoSliceMut::new(&mut buffer)];
    // SAFETY: a C struct of integers and pointers.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = parts.as_mut_ptr().cast();
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the buffers are as long as the header says, and outlive the calls; the kernel writes whole
    // messages, and a descriptor that it passes is new and nobody else's.
    unsafe {
        let socket = manager.socket.as_raw_fd();
        let length = libc::recvmsg(socket, &mut header, libc::MSG_CMSG_CLOEXEC);
        assert!(length >= 0, "{}", std::io::Error::last_os_error());
        let message = libc::CMSG_FIRSTHDR(&header);
        let descriptor = (!message.is_null()).then(|| {
            assert_eq!((*message).cmsg_type, libc::SCM_RIGHTS);
            OwnedFd::from_raw_fd(libc::CMSG_DATA(message).cast::<i32>().read_unaligned())
        });
        let text = std::str::from_utf8(&buffer[..length as usize]).unwrap();
        (text.lines().map(str::to_owned).collect(), descriptor)
    }
}

/// What the service stores between two of its processes.
struct Store {
    name: String,
    socket: OwnedFd,
}

impl Store {
    /// Hears that one socket is stored, in place of whatever was there.
    fn hear(manager: &Manager) -> Store {
        let (removed, nothing) = hear_with_descriptor(manager);
        assert_eq!(removed[0], "FDSTOREREMOVE=1");
        assert!(nothing.is_none());
        let (stored, socket) = hear_with_descriptor(manager);
        assert_eq!(stored[0], "FDSTORE=1");
        assert_eq!(stored[1..], removed[1..]);
        let name = stored[1].strip_prefix("FDNAME=").unwrap().to_owned();
        let socket = socket.unwrap();
        Store { name, socket }
    }

    /// Passes the socket to the next process of the service, as systemd does.
    fn pass(&self, command: Command) -> Command {
        let mut shell = Command::new("sh");
        // The socket comes as standard input and is moved to where systemd puts it.
        shell
            .arg("-c")
            .arg("exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" \"$@\"")
            .arg(command.get_program())
            .args(command.get_args())
            .envs(
                command
                    .get_envs()
                    .filter_map(|(key, value)| Some((key, value?))),
            )
            .env("LISTEN_FDNAMES", &self.name)
            .stdin(self.socket.try_clone().unwrap());
        shell
    }
}

#[test]
fn stored_listeners_come_back_and_nobody_is_refused_in_between() {
    let test = "stored_listeners_come_back_and_nobody_is_refused_in_between";
    if let Some(role) = role() {
        let builder = Server::builder()
            .signals(Signals::process())
            .service(echo())
            .store_listeners();
        let server = builder.address(role).start().unwrap();
        serve(server);
    }
    let _bound = bound();
    for kind in ["127.0.0.1:0", "unix"] {
        let manager = Manager::new();
        let path = manager.folder.join("greeter.sock");
        let address = match kind {
            "unix" => format!("unix:{}", path.display()),
            tcp => tcp.to_owned(),
        };
        let mut first = Process::spawn(manager.command(&address, test));
        manager.expect(&["STATUS=starting"]);
        let store = Store::hear(&manager);
        assert!(store.name.starts_with("touchdown/"), "{}", store.name);
        manager.expect(&["READY=1", "STATUS=serving"]);
        let place = address_of(&mut first);
        first.signal("TERM");
        assert_eq!(first.end().code, Some(0));
        assert_eq!(manager.rest().last().unwrap(), &["STATUS=stopped: SIGTERM"]);
        assert_eq!(path.exists(), kind == "unix");

        // Nobody is there; the call waits.
        let client = Client::new(&channel_to(&place));
        let (sender, answer) = channel();
        let call = thread::spawn(move || sender.send(call(&client, "hello")).unwrap());
        let mut second = Process::spawn(store.pass(manager.command(&address, test)));
        manager.expect(&["STATUS=starting"]);
        // It is stored already.
        manager.expect(&["READY=1", "STATUS=serving"]);
        assert_eq!(address_of(&mut second), place);
        assert_eq!(answer.recv_timeout(LONG).unwrap().unwrap(), "hello");
        call.join().unwrap();
        second.signal("TERM");
        assert_eq!(second.end().code, Some(0));
        manager.rest();

        // A process that listens elsewhere closes it, and has it removed.
        let elsewhere = format!("unix:{}", manager.folder.join("other.sock").display());
        let third = Process::spawn(store.pass(manager.command(&elsewhere, test)));
        manager.expect(&["STATUS=starting"]);
        let name = format!("FDNAME={}", store.name);
        let removed = [manager.hear(), manager.hear()];
        assert!(
            removed.contains(&vec!["FDSTOREREMOVE=1".to_owned(), name]),
            "{removed:?}"
        );
        third.signal("TERM");
        assert_eq!(third.end().code, Some(0));
        // It was this test that kept it open.
        drop(store);
        if kind == "unix" {
            assert!(UnixStream::connect(&path).is_err());
        }
    }
}

#[test]
fn a_new_process_becomes_the_main_one_when_it_takes_over_and_speaks_from_then_on() {
    let test = "a_new_process_becomes_the_main_one_when_it_takes_over_and_speaks_from_then_on";
    if is_child() {
        let upgrade = Upgrade::new().settle(Duration::ZERO);
        serve(
            builder(echo())
                .upgrade(upgrade)
                .store_listeners()
                .start()
                .unwrap(),
        );
    }
    let _bound = bound();
    let manager = Manager::new();
    let mut command = manager.command("1", test);
    // Systemd's, for the first process.
    command.env("WATCHDOG_USEC", "20000");
    let mut first = Process::spawn(command);
    let place = address_of(&mut first);
    hear_of(&manager, "READY=1");
    first.signal("USR2");
    let replaced = hear_of(&manager, "MAINPID=");
    let id = replaced[0].strip_prefix("MAINPID=").unwrap().to_owned();
    assert_ne!(id, first.id().to_string());
    assert_eq!(replaced[1], format!("STATUS=replaced by process {id}"));
    // There is not one message between the two that matter, nor a second READY.
    manager.expect(&[&format!("MAINPID={id}"), "READY=1", "STATUS=serving"]);
    manager.expect_fed(3);
    eventually("the old process ends", || !first.is_running());
    manager.expect_fed(3);
    assert_eq!(
        call(&Client::new(&channel_to(&place)), "hello").unwrap(),
        "hello"
    );
    let kill = Command::new("kill").arg(&id).status().unwrap();
    assert!(kill.success());
    hear_of(&manager, "STOPPING=1");
    hear_of(&manager, "STATUS=stopped: SIGTERM");
    // The new process has its standard output, too.
    assert_eq!(first.end().code, Some(i32::from(exit_code::CLEAN)));
}

#[test]
fn an_upgrade_that_fails_leaves_no_trace() {
    if is_child() {
        let upgrade = Upgrade::new().program("/bin/false");
        let server = builder(echo()).upgrade(upgrade).start().unwrap();
        order();
        Upgrade::begin(server.lifecycle()).unwrap_err();
        say("failed");
        serve(server);
    }
    let _bound = bound();
    let manager = Manager::new();
    let mut child = manager.start("an_upgrade_that_fails_leaves_no_trace");
    manager.expect(&["STATUS=starting"]);
    manager.expect(&["READY=1", "STATUS=serving"]);
    child.tell("go");
    child.hear("failed");
    child.signal("TERM");
    manager.expect_extended(&["STOPPING=1", "STATUS=stopping: SIGTERM"]);
    assert_eq!(child.end().code, Some(i32::from(exit_code::CLEAN)));
}
