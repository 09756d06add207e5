//! Listening sockets of every kind, what is known of who connects to them, and what happens when no
//! descriptors are left.
#![cfg(feature = "client")]

mod common;
mod lifecycle_support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use lifecycle_support::{bound, role, say as tell, Process};
use touchdown::client::Client;
use touchdown::lifecycle::{exit_code, Lifecycle, Signals};
use touchdown::{
    Address, Call, CallObserver, Code, ConnectionEvent, ConnectionRefusal, Interceptor, Listen,
    Server, StartError, Status,
};

/// A folder for sockets, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let name = format!("touchdown-{}-{test}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn path(&self) -> PathBuf {
        self.0.join("it.sock")
    }

    fn address(&self) -> String {
        format!("unix:{}", self.path().display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Of no other test, and of no other process that runs this one.
fn abstract_address(test: &str) -> String {
    format!("unix-abstract:touchdown-{}-{test}", std::process::id())
}

fn client_at(address: &str) -> Client {
    Client::new(&channel_to(address))
}

#[test]
fn one_server_listens_at_sockets_of_every_kind() {
    let folder = Folder::new("kinds");
    let server = Server::builder()
        .lifecycle(planned(quick_plan()))
        .service(unary(|call, _| Ok(text(call.peer().to_string()))))
        .address("127.0.0.1:0")
        .listen(Listen::new("[::1]:0").tcp_user_timeout(Duration::from_secs(3)))
        .listen(Listen::new(folder.address()).mode(0o600))
        .address(abstract_address("kinds"))
        .start()
        .unwrap();
    let [v4, v6, path, name] = server.addresses() else {
        panic!("{:?}", server.addresses())
    };
    assert_eq!(*path, Address::Unix(folder.path()));
    assert!(matches!(name, Address::Abstract(_)), "{name:?}");
    let expected = [
        (v4, "127.0.0.1:"),
        (v6, "[::1]:"),
        (path, "unix"),
        (name, "unix"),
    ];
    for (address, peer) in expected {
        let seen = say(&client_at(&address.to_string()), "").unwrap();
        assert!(seen.starts_with(peer), "{seen} at {address}");
    }
    let mode = fs::metadata(folder.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(server.shutdown().exit_code(), exit_code::CLEAN);
    assert!(!folder.path().exists());
}

/// Lets nobody in but this test's own user, and that by a unix socket.
struct OnlyMyself(u32);

impl Interceptor for OnlyMyself {
    fn before(&self, call: &Call) -> Result<(), Status> {
        match call.peer_credentials() {
            Some(peer) if peer.uid == self.0 => Ok(()),
            other => Err(Status::permission_denied(format!("{other:?}"))),
        }
    }
}

#[test]
fn calls_know_the_credentials_of_a_peer_at_a_unix_socket() {
    let folder = Folder::new("credentials");
    let own = fs::metadata(&folder.0).unwrap();
    let server = builder(unary(|call, _| {
        let peer = call.peer_credentials().expect("it came by a unix socket");
        Ok(text(format!("{} {} {:?}", peer.uid, peer.gid, peer.pid)))
    }))
    .address(folder.address())
    .address(abstract_address("credentials"))
    .interceptor(OnlyMyself(own.uid()))
    .start()
    .unwrap();
    let expected = format!("{} {} {:?}", own.uid(), own.gid(), Some(std::process::id()));
    for address in [folder.address(), abstract_address("credentials")] {
        assert_eq!(say(&client_at(&address), "").unwrap(), expected);
    }
    // The first listener is one of TCP, where there is nothing to know.
    let refused = say(&client(&server), "").unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(refused.message(), "None");
}

#[test]
fn settings_that_make_no_sense_are_errors_that_name_them() {
    let second = Duration::from_secs(1);
    let tcp = || Listen::new("127.0.0.1:0");
    let unix = || Listen::new("unix:/nowhere/it.sock");
    let wrong = [
        (tcp().mode(0o600), "mode is 0o600"),
        (unix().mode(0o1777), "mode is 0o1777"),
        (Listen::new("unix-abstract:it").mode(0o600), "mode is 0o600"),
        (tcp().owner(1, 2), "owner is 1, 2"),
        (unix().tcp_user_timeout(second), "tcp_user_timeout is 1s"),
        (
            tcp().tcp_user_timeout(Duration::ZERO),
            "tcp_user_timeout is 0ns",
        ),
        (
            unix().tcp_keepalive(second, second, 3),
            "tcp_keepalive is 1s, 1s, 3",
        ),
        (
            tcp().tcp_keepalive(second, second, 128),
            "tcp_keepalive is 1s, 1s, 128",
        ),
        (
            tcp().tcp_keepalive(Duration::ZERO, second, 3),
            "tcp_keepalive is 0ns, 1s, 3",
        ),
        (
            tcp().tcp_keepalive(second, second * 32_768, 3),
            "tcp_keepalive is 1s, 32768s, 3",
        ),
        (Listen::new("unix:"), "a path must follow"),
        (
            Listen::new("unix-abstract:"),
            "a name without zero bytes must follow",
        ),
        (
            Listen::new("unix-abstract:a\0b"),
            "a name without zero bytes must follow",
        ),
        (Listen::new("systemd:web"), "systemd has passed no socket"),
    ];
    for (listen, expected) in wrong {
        let error = Server::builder().listen(listen).start().unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_socket_that_somebody_else_has_there_is_an_error_and_stays() {
    let folder = Folder::new("taken");
    fs::write(folder.path(), "somebody's").unwrap();
    let start = || builder(echo()).address(folder.address()).start();
    let error = start().unwrap_err();
    assert!(matches!(error, StartError::Listen { .. }), "{error}");
    assert_eq!(fs::read(folder.path()).unwrap(), b"somebody's");
    fs::remove_file(folder.path()).unwrap();
    let server = start().unwrap();
    start().expect_err("somebody listens there");
    assert_eq!(say(&client_at(&folder.address()), "hi").unwrap(), "hi");
    // Another one's, which this server's end must not take away.
    fs::remove_file(folder.path()).unwrap();
    let _other = UnixListener::bind(folder.path()).unwrap();
    drop(server);
    assert!(folder.path().exists());
}

/// Runs a test again in a process that has been passed a socket as systemd does.
fn start_with_socket(socket: impl Into<OwnedFd>, name: &str, role: &str, test: &str) -> Process {
    let script = format!(
        "exec 3<&0 0</dev/null
        LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES={name} exec \"$0\" \"$@\""
    );
    let socket = Stdio::from(socket.into());
    Process::start_in_shell(&script, socket, role, test)
}

#[test]
fn sockets_that_systemd_has_passed_are_served() {
    let test = "sockets_that_systemd_has_passed_are_served";
    let _bound = bound();
    if let Some(address) = role() {
        let server = Server::builder()
            .address(address)
            .lifecycle(planned(quick_plan()).signals(Signals::process()))
            .service(echo())
            .start();
        tell(&match &server {
            Ok(server) => format!("listening at {}", server.address()),
            Err(error) => error.to_string(),
        });
        let code = server.map_or(0, |it| it.wait().exit_code());
        std::process::exit(code.into())
    }
    let serves = |mut process: Process, address: &str| {
        process.hear(&format!("listening at {address}"));
        assert_eq!(say(&client_at(address), "hello").unwrap(), "hello");
        process.signal("TERM");
        let end = process.end();
        assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
    };
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap().to_string();
    // This process goes on listening, too, so the address cannot be bound.
    let copy = || tcp.try_clone().unwrap();
    serves(
        start_with_socket(copy(), "web", "systemd:web", test),
        &address,
    );
    serves(start_with_socket(copy(), "web", &address, test), &address);
    let mut process = start_with_socket(copy(), "web", "systemd:other", test);
    process.hear("cannot listen at systemd:other: systemd has passed no socket of this name");
    process.end();

    let folder = Folder::new("systemd");
    let unix = UnixListener::bind(folder.path()).unwrap();
    let passed = start_with_socket(unix, "it", "systemd:it", test);
    serves(passed, &folder.address());
    assert!(folder.path().exists(), "systemd may go on listening there");
}

/// A server in a process that may have so many descriptors, and as many connections as there are
/// descriptors for.
struct Starved {
    process: Process,
    address: String,
}

impl Starved {
    fn start(descriptors: usize, test: &str) -> Starved {
        let script = ulimit(descriptors);
        let mut process = Process::start_in_shell(&script, Stdio::null(), "server", test);
        let line = process.hear("listening at");
        let address = line.rsplit(' ').next().unwrap().to_owned();
        Starved { process, address }
    }

    fn serve() -> ! {
        let turned_away = Arc::<TurnedAway>::default();
        let server = builder(echo())
            .observer(Arc::clone(&turned_away))
            .lifecycle(Lifecycle::builder().signals(Signals::process()))
            .max_connections(100_000)
            .start()
            .unwrap();
        tell(&format!("listening at {}", server.address()));
        let report = server.wait();
        tell(&format!(
            "turned away {}",
            turned_away.0.load(Ordering::SeqCst)
        ));
        std::process::exit(report.exit_code().into())
    }

    fn connect(&self) -> TcpStream {
        let mut socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        // It fails if the server has closed it by now.
        let _ = socket.write_all(PREFACE);
        socket
    }

    /// How much processor time it has used.
    fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        // proc(5): behind the name in brackets, the 12th and 13th field are user and system time,
        // in ticks, of which Linux tells programs 100 a second.
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(|it| it.parse::<u64>().unwrap()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Fails if the process does more in a while than look whether anything has changed.
    fn assert_idle(&self) {
        let before = self.processor_time();
        thread::sleep(Duration::from_secs(2));
        let used = self.processor_time() - before;
        assert!(used < Duration::from_millis(200), "{used:?} in two seconds");
    }

    fn set_limit(&self, descriptors: usize) {
        let status = Command::new("prlimit")
            .args(["--pid", &self.process.id().to_string()])
            .arg(format!("--nofile={descriptors}:"))
            .status();
        assert!(status.unwrap().success());
    }

    /// Returns how many it has turned away since there was no descriptor, as its observer was told.
    fn stop(mut self) -> usize {
        self.process.signal("TERM");
        let told = self.process.hear("turned away");
        let turned_away = told.trim_end().rsplit(' ').next().unwrap().parse();
        let end = self.process.end();
        assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
        turned_away.unwrap()
    }
}

/// How many connections were turned away for want of a descriptor.
#[derive(Default)]
struct TurnedAway(AtomicUsize);

impl CallObserver for TurnedAway {
    fn connection(&self, event: &ConnectionEvent) {
        if let ConnectionEvent::Refused { reason, .. } = event {
            assert_eq!(*reason, ConnectionRefusal::NoDescriptor);
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn ulimit(descriptors: usize) -> String {
    format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"")
}

/// Whether the server speaks HTTP/2 there, or has closed the connection. Panics if it does neither.
fn is_served(socket: &mut TcpStream) -> bool {
    match socket.read(&mut [0; 1]) {
        Ok(count) => count == 1,
        Err(error) => {
            let kind = error.kind();
            assert_eq!(kind, std::io::ErrorKind::ConnectionReset, "{error}");
            false
        }
    }
}

/// Fails if a call is not answered, or if most take long; some do on a busy machine.
fn assert_prompt_calls(client: &Client) {
    let call = || {
        let begun = Instant::now();
        assert_eq!(say(client, "hello").unwrap(), "hello");
        begun.elapsed()
    };
    let mut taken: Vec<Duration> = std::iter::repeat_with(call).take(51).collect();
    taken.sort();
    assert!(taken[25] < Duration::from_millis(100), "{taken:?}");
}

const CROWD: &str = "a_server_without_descriptors_serves_whom_it_has_and_turns_others_away";

#[test]
fn a_server_without_descriptors_serves_whom_it_has_and_turns_others_away() {
    let _bound = bound();
    match role().as_deref() {
        None => {
            let end = Process::start_in_shell(&ulimit(4096), Stdio::null(), "crowd", CROWD).end();
            assert_eq!(end.code, Some(0), "{}\n{}", end.stdout, end.stderr);
        }
        Some("server") => Starved::serve(),
        _ => crowd(),
    }
}

/// 2,000 clients of a server that has descriptors for half of them.
fn crowd() {
    let server = Starved::start(1000, CROWD);
    let client = client_at(&server.address);
    assert_eq!(say(&client, "hello").unwrap(), "hello");
    let sockets: Vec<TcpStream> = (0..2000).map(|_| server.connect()).collect();
    let mut served: Vec<TcpStream> = Vec::new();
    for mut socket in sockets {
        if is_served(&mut socket) {
            served.push(socket);
        }
    }
    let mut turned_away = 2000 - served.len();
    assert!((800..1000).contains(&served.len()), "{}", served.len());
    assert_prompt_calls(&client);
    server.assert_idle();
    assert_prompt_calls(&client);
    let mut recovers_at_once = || {
        served.truncate(served.len() - 20);
        let begun = Instant::now();
        // The server may not have seen the end of the others yet.
        while !is_served(&mut server.connect()) {
            turned_away += 1;
            assert!(begun.elapsed() < LONG, "nobody new is served");
        }
        begun.elapsed() < Duration::from_millis(100)
    };
    // The machine may be busy with something else for a while.
    let recovered = (0..20).any(|_| recovers_at_once());
    assert!(recovered, "somebody new is served within 100 ms");
    drop(served);
    drop(client);
    assert_eq!(server.stop(), turned_away);
}

const PAUSE: &str = "a_server_that_cannot_even_turn_clients_away_waits_without_spinning";

#[test]
fn a_server_that_cannot_even_turn_clients_away_waits_without_spinning() {
    let _bound = bound();
    if role().is_some() {
        Starved::serve();
    }
    let server = Starved::start(1000, PAUSE);
    let client = client_at(&server.address);
    assert_eq!(say(&client, "hello").unwrap(), "hello");
    // Below what it has already: nothing that it closes makes room.
    server.set_limit(3);
    let mut waiting: Vec<TcpStream> = (0..20).map(|_| server.connect()).collect();
    server.assert_idle();
    assert_prompt_calls(&client);
    server.set_limit(1000);
    assert!(
        waiting.iter_mut().all(is_served),
        "they were kept for better times"
    );
    drop(client);
    server.stop();
}
