//! Listening sockets of a program without gRPC: what becomes of connections when it stops.
#![cfg(feature = "upgrade")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use touchdown::acceptor::{Acceptor, Address, BindError, Stream};
use touchdown::lifecycle::{exit_code, Lifecycle, Plan, Report};
use touchdown::sockets::{stored_name, Bound};
use touchdown::{Listen, Upgrade};

/// A test that waits longer than this hangs.
const LONG: Duration = Duration::from_secs(60);

fn plan() -> Plan {
    Plan::new().with_grace_period(LONG).with_force_period(LONG)
}

fn serving(plan: Plan) -> Lifecycle {
    let lifecycle = Lifecycle::builder().plan(plan).build().unwrap();
    lifecycle.ready().unwrap();
    lifecycle
}

fn anywhere(lifecycle: &Lifecycle) -> Acceptor {
    Listen::new("127.0.0.1:0").bind(lifecycle).unwrap()
}

fn connect(acceptor: &Acceptor) -> TcpStream {
    TcpStream::connect(acceptor.address().to_string()).unwrap()
}

fn socket_path(test: &str) -> PathBuf {
    let name = format!("touchdown-acceptor-{}-{test}.sock", std::process::id());
    std::env::temp_dir().join(name)
}

/// Runs this on another thread, since it hangs if it fails.
fn in_time<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, result) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    result
        .recv_timeout(LONG)
        .unwrap_or_else(|error| panic!("{what}: {error}"))
}

fn end(lifecycle: Lifecycle) -> Report {
    in_time("the end", move || lifecycle.wait())
}

#[cfg(feature = "server")]
#[test]
fn what_only_a_grpc_server_can_keep_is_refused() {
    let lifecycle = serving(plan());
    let error = Listen::new("127.0.0.1:0").public().bind(&lifecycle);
    let error = error.map(|_| ()).unwrap_err();
    assert!(
        matches!(
            error,
            BindError::Setting {
                setting: "public",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn what_waits_in_the_kernel_as_the_drain_begins_is_accepted_yet() {
    let lifecycle = serving(plan());
    let acceptor = anywhere(&lifecycle);
    let address = acceptor.address().to_string();
    let mut clients: Vec<_> = (0..3).map(|_| connect(&acceptor)).collect();
    lifecycle.shutdown("test");
    lifecycle.draining().wait();
    let (acceptor, accepted) = in_time("all are accepted", move || {
        let mut accepted = 0;
        while let Some(mut connection) = acceptor.accept() {
            connection.write_all(b"!").unwrap();
            accepted += 1;
        }
        (acceptor, accepted)
    });
    assert_eq!(accepted, 3);
    for client in &mut clients {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "!");
    }
    assert!(acceptor.accept().is_none(), "it stays so");
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(end(lifecycle).exit_code(), exit_code::CLEAN);
}

#[test]
fn every_thread_that_waits_hears_of_the_end() {
    // They may wait by then, or be about to.
    for _ in 0..50 {
        let lifecycle = serving(plan());
        let acceptor = anywhere(&lifecycle);
        in_time("all threads end", move || {
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| assert!(acceptor.accept().is_none()));
                }
                lifecycle.shutdown("test");
            });
        });
    }
}

#[test]
fn a_connection_is_waited_for_until_it_is_dropped() {
    let lifecycle = serving(plan());
    let acceptor = anywhere(&lifecycle);
    let mut client = connect(&acceptor);
    let mut connection = acceptor.accept().unwrap();
    assert_eq!(connection.peer(), Some(client.local_addr().unwrap()));
    assert_eq!(connection.peer_credentials(), None);
    assert_eq!(
        (acceptor.connections(), lifecycle.in_flight().count()),
        (1, 1)
    );
    lifecycle.shutdown("test");
    lifecycle.draining().wait();
    let described = lifecycle.describe();
    let line = format!("connection from {}, for ", client.local_addr().unwrap());
    assert!(described.contains(&line), "{described}");
    client.write_all(b"ping").unwrap();
    let mut heard = [0; 4];
    connection.read_exact(&mut heard).unwrap();
    connection.write_all(&heard).unwrap();
    // The drain waits for the guard, whatever becomes of the stream.
    let (stream, guard) = connection.into_parts();
    assert!(matches!(stream, Stream::Tcp(_)));
    drop(stream);
    client.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"ping");
    assert!(!lifecycle.cancelling().is_cancelled());
    // It, and what may wait in the kernel, once the acceptor was told.
    while lifecycle.in_flight().count() != 2 {
        thread::yield_now();
    }
    drop(guard);
    assert!(acceptor.accept().is_none());
    assert_eq!(end(lifecycle).exit_code(), exit_code::CLEAN);
}

#[test]
fn when_the_grace_period_is_over_the_input_ends_and_the_output_does_not() {
    let lifecycle = serving(plan().with_grace_period(Duration::from_millis(10)));
    let acceptor = anywhere(&lifecycle);
    let mut idle = connect(&acceptor);
    let mut connection = acceptor.accept().unwrap();
    let serves = thread::spawn(move || {
        let mut request = Vec::new();
        // It would wait for ever.
        connection.read_to_end(&mut request).unwrap();
        connection.write_all(b"bye").unwrap();
    });
    lifecycle.shutdown("test");
    in_time("the thread comes back", || serves.join().unwrap());
    let mut heard = String::new();
    idle.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "bye");
    assert!(acceptor.accept().is_none());
    end(lifecycle);
}

#[test]
fn a_program_that_accepts_no_more_is_not_waited_for_beyond_the_grace_period() {
    let lifecycle = serving(plan().with_grace_period(Duration::from_millis(10)));
    let acceptor = anywhere(&lifecycle);
    let mut client = connect(&acceptor);
    lifecycle.shutdown("test");
    end(lifecycle);
    let mut heard = Vec::new();
    assert!(
        client.read_to_end(&mut heard).is_err(),
        "it is reset: nobody has read it"
    );
    assert!(acceptor.accept().is_none());
}

#[test]
fn a_stop_during_start_up_ends_it_too() {
    let lifecycle = Lifecycle::builder().build().unwrap();
    let acceptor = anywhere(&lifecycle);
    let waits = thread::spawn(move || acceptor.accept().is_none());
    lifecycle.shutdown("test");
    assert!(in_time("it ends", move || waits.join().unwrap()));
    let stopping = Listen::new("127.0.0.1:0").bind(&lifecycle).unwrap_err();
    assert!(matches!(stopping, BindError::Stopping), "{stopping}");
    end(lifecycle);
}

#[test]
fn one_that_is_dropped_listens_no_more_and_the_program_goes_on() {
    let lifecycle = serving(plan());
    let acceptor = anywhere(&lifecycle);
    let address = acceptor.address().to_string();
    let open = connect(&acceptor);
    let connection = acceptor.accept().unwrap();
    drop(acceptor);
    TcpStream::connect(address).unwrap_err();
    (&connection).write_all(b"!").unwrap();
    drop(connection);
    let mut heard = String::new();
    (&open).read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "!");
    assert!(!lifecycle.stopping().is_cancelled());
    lifecycle.shutdown("test");
    assert_eq!(end(lifecycle).exit_code(), exit_code::CLEAN);
}

#[test]
fn a_unix_socket_has_its_mode_and_credentials_and_goes_with_the_program() {
    let path = socket_path("mode");
    let lifecycle = Lifecycle::builder().plan(plan()).upgrade(Upgrade::new());
    let lifecycle = lifecycle.build().unwrap();
    let listen = Listen::new(format!("unix:{}", path.display())).mode(0o600);
    let acceptor = listen.bind(&lifecycle).unwrap();
    lifecycle.ready().unwrap();
    assert_eq!(*acceptor.address(), Address::Unix(path.clone()));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let client = UnixStream::connect(&path).unwrap();
    let connection = acceptor.accept().unwrap();
    let credentials = connection.peer_credentials().unwrap();
    assert_eq!(credentials.uid, fs::metadata(&path).unwrap().uid());
    assert_eq!(credentials.pid, Some(std::process::id()));
    assert_eq!(connection.peer(), None);
    client.shutdown(Shutdown::Both).unwrap();
    drop(connection);
    lifecycle.shutdown("test");
    assert!(acceptor.accept().is_none());
    assert_eq!(end(lifecycle).exit_code(), exit_code::CLEAN);
    assert!(!path.exists());
}

#[test]
fn what_cannot_be_listened_at_is_an_error_that_says_why() {
    let lifecycle = serving(plan());
    let taken = anywhere(&lifecycle);
    let address = taken.address().to_string();
    let wrong = [
        (
            Listen::new(&address),
            format!("cannot listen at {address}: the port is in use by this process itself"),
        ),
        (
            Listen::new("127.0.0.1:0").mode(0o600),
            "mode is 0o600, and must be set for a unix socket's path only".to_owned(),
        ),
        (
            Listen::new("systemd:web"),
            "cannot listen at systemd:web: systemd has passed no socket".to_owned(),
        ),
        (
            Listen::new("localhost"),
            "cannot listen at localhost: it has no port: write localhost:50051".to_owned(),
        ),
    ];
    for (listen, expected) in wrong {
        let error = listen.bind(&lifecycle).unwrap_err().to_string();
        assert!(error.starts_with(&expected), "{error}");
    }
}

#[test]
fn what_it_has_bound_can_be_kept_for_the_next_process() {
    let path = socket_path("kept");
    let address = format!("unix:{}", path.display());
    let lifecycle = serving(plan());
    let acceptor = Listen::new(&address).bind(&lifecycle).unwrap();
    let kept = acceptor.bound_sockets().unwrap();
    let [socket] = &kept[..] else {
        panic!("{kept:?}")
    };
    assert_eq!(socket.address, address);
    assert_eq!(socket.stored_name(), stored_name(&address));
    drop(acceptor);
    // Whoever keeps it has a queue for this one.
    UnixStream::connect(&path).unwrap();
    fs::remove_file(path).unwrap();
}
