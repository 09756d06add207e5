//! Addresses at which a server cannot listen: each error says what is wrong, and what to do.
#![cfg(feature = "server")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process;

use common::*;
use touchdown::{Listen, Server, StartError};

/// The sentence with which a server does not start at this address.
fn refusal(address: &str) -> String {
    let server = Server::builder().address(address).service(echo());
    let error = server.start().map(drop).unwrap_err();
    assert!(matches!(error, StartError::Listen { .. }), "{error:?}");
    error.to_string()
}

/// An empty folder, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let name = format!("touchdown-addresses-{}-{name}", process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_is_no_address_is_told_how_to_write_it() {
    assert_eq!(
        refusal("50951"),
        "cannot listen at 50951: it is a port without a host: write 127.0.0.1:50951 for callers on this machine, or \
         0.0.0.0:50951 or [::]:50951 for all"
    );
    assert_eq!(
        refusal(":50961"),
        "cannot listen at :50961: it is a port without a host: write 127.0.0.1:50961 for callers on this machine, or \
         0.0.0.0:50961 or [::]:50961 for all"
    );
    assert_eq!(
        refusal("http://127.0.0.1:50051"),
        "cannot listen at http://127.0.0.1:50051: it begins with http://, as a URL: write 127.0.0.1:50051"
    );
}

#[test]
fn an_address_may_be_read_before_the_server_starts() {
    let error = "50951".parse::<Listen>().unwrap_err();
    assert_eq!(error.text(), "50951");
    assert!(error
        .to_string()
        .starts_with("\"50951\" is no address: it is a port"));
    let listen: Listen = "127.0.0.1:0".parse().unwrap();
    let server = Server::builder().listen(listen).service(echo()).start();
    let port = server.unwrap().address().port();
    assert_ne!(port, Some(0));
}

#[test]
fn a_port_in_use_is_told_by_whom() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(
        refusal(&address.to_string()),
        format!(
            "cannot listen at {address}: the port is in use by this process itself: give each address once, or listen \
             at another port (with port 0 the kernel chooses one)"
        )
    );
}

#[test]
fn a_port_that_another_process_has_is_told_with_its_id_and_name() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let child = Sleeps::with(listener.into());
    let words = format!(
        "the port is in use by process {} (sleep): end it, or",
        child.0.id()
    );
    // It may not have come to its own name yet.
    eventually("the process is named", || {
        refusal(&address.to_string()).contains(&words)
    });
}

/// A process that has a socket as its standard input, which this one has no more.
struct Sleeps(process::Child);

impl Sleeps {
    fn with(socket: OwnedFd) -> Sleeps {
        let mut command = process::Command::new("sleep");
        command.arg("1000").stdin(socket);
        command
            .stdout(process::Stdio::null())
            .stderr(process::Stdio::null());
        Sleeps(command.spawn().unwrap())
    }
}

impl Drop for Sleeps {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_address_of_another_machine_is_told_to_be_none_of_this_one() {
    // For documentation alone: RFC 5737.
    assert_eq!(
        refusal("192.0.2.1:50051"),
        "cannot listen at 192.0.2.1:50051: no network interface of this machine has that address now: wait until it is \
         up, or listen at 0.0.0.0:50051, which is every one"
    );
}

/// `localhost` is `::1`, too, in hosts files of machines that have no IPv6. In a network of its own, there is none.
#[test]
fn a_name_is_listened_at_where_the_machine_has_it() {
    let target = std::env::current_exe().unwrap();
    let server = target.ancestors().nth(2).unwrap();
    let server = server.join("examples/greeter_server");
    assert!(
        server.exists(),
        "{} is missing: cargo build --examples",
        server.display()
    );
    let folder = Folder::new("hosts");
    let hosts = folder.path("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n::1 localhost\n").unwrap();
    let script = "ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6 \
         && mount --bind $2 /etc/hosts || exit 77; exec $0 $1";
    let serve = |address: &str| {
        let mut command = process::Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c"]);
        command.arg(script).arg(&server).args([address, &hosts]);
        command.stdout(process::Stdio::null());
        command.stderr(process::Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        for line in lines.map_while(Result::ok) {
            if line.contains("starting → serving") {
                let id = child.id().to_string();
                process::Command::new("kill").arg(id).status().unwrap();
            }
            said += &(line + "\n");
        }
        match child.wait().unwrap().code() {
            Some(0 | 5) => Ok(said),
            // unshare itself, or what comes before the server.
            Some(1 | 77) => Err(said),
            other => panic!("{other:?}: {said}"),
        }
    };
    let said = match serve("localhost:0") {
        Ok(said) => said,
        Err(why) => return println!("skipped, since there is no network to be had: {why}"),
    };
    assert!(said.contains("listening at 127.0.0.1:"), "{said}");
    let left_out =
        "localhost:0 stands for [::1]:0, too, where nobody listens: IPv6 is off on this machine";
    assert!(said.contains(left_out), "{said}");
    assert!(said.contains("stopped cleanly"), "{said}");
    let said = serve("[::1]:0").unwrap();
    let refused = "cannot listen at [::1]:0: IPv6 is off on this machine";
    assert!(said.contains(refused), "{said}");
}

#[test]
fn a_path_in_a_folder_that_is_missing_is_told_which() {
    let folder = Folder::new("missing");
    let missing = folder.path("gone");
    assert_eq!(
        refusal(&format!("unix:{missing}/greeter.sock")),
        format!(
            "cannot listen at unix:{missing}/greeter.sock: the folder {missing} does not exist: make it before the \
             start (in a systemd unit, RuntimeDirectory=), or choose another path"
        )
    );
    let file = folder.path("file");
    fs::write(&file, "").unwrap();
    assert_eq!(
        refusal(&format!("unix:{file}/greeter.sock")),
        format!("cannot listen at unix:{file}/greeter.sock: {file} is not a folder: choose another path")
    );
}

#[test]
fn a_path_at_which_something_else_lies_is_told_what() {
    let folder = Folder::new("occupied");
    let file = folder.path("file");
    fs::write(&file, "somebody's").unwrap();
    assert_eq!(
        refusal(&format!("unix:{file}")),
        format!(
            "cannot listen at unix:{file}: a regular file lies there, and only a socket that nobody uses is replaced: \
             remove it, or choose another path"
        )
    );
    let socket = folder.path("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    assert_eq!(
        refusal(&format!("unix:{socket}")),
        format!(
            "cannot listen at unix:{socket}: the socket is in use by this process itself: give each address once, or \
             choose another path"
        )
    );
}

#[test]
fn a_path_that_is_too_long_is_told_how_long_it_may_be() {
    let long = format!("/tmp/{}", "x".repeat(120));
    assert_eq!(
        refusal(&format!("unix:{long}")),
        format!(
            "cannot listen at unix:{long}: the path has 125 bytes, and that of a unix socket has 107 at the most: \
             choose a shorter one"
        )
    );
}

#[test]
fn a_name_of_the_abstract_namespace_in_use_is_told_by_whom() {
    let name = format!("unix-abstract:touchdown-addresses-{}", process::id());
    let server = Server::builder().address(&name).service(echo());
    let _server = server.start().unwrap();
    let words = refusal(&name);
    assert!(
        words.contains("the name is in use by this process itself"),
        "{words}"
    );
}
