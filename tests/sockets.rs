//! Listening sockets of every kind, what is known of who connects to them, and what happens when no
//! descriptors are left.
#![cfg(feature = "server")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use common::*;
use touchdown::client::Client;
use touchdown::lifecycle::exit_code;
use touchdown::{Address, Call, Code, Interceptor, Listen, Server, StartError, Status};

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
        .plan(quick_plan())
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
    let _other = std::os::unix::net::UnixListener::bind(folder.path()).unwrap();
    drop(server);
    assert!(folder.path().exists());
}
