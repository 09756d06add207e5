//! Certificates that are not valid now, or because this machine's clock is wrong: they are served, and told of.
#![cfg(feature = "tls")]

mod common;
mod tls_support;

use std::env;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use common::{echo, eventually, LONG};
use tls_support::*;
use touchdown::{Server, TlsError};

/// Calls with a client that takes any certificate, and returns the one that it was shown.
fn shown_to_anybody(server: &Server, folder: &Folder) -> Vec<u8> {
    let ca = folder.file("ca.pem");
    let mut client = connect(server, &Wish::new(&ca).credulous());
    client.begin().expect("it is served");
    assert_eq!(client.say("served").unwrap(), "served");
    let shown = client.stream.conn.peer_certificates().unwrap();
    shown[0].to_vec()
}

fn not_yet_valid(mut params: rcgen::CertificateParams) -> rcgen::CertificateParams {
    params.not_before = rcgen::date_time_ymd(3000, 1, 1);
    params.not_after = rcgen::date_time_ymd(3001, 1, 1);
    params
}

/// A board that has just started has no idea of the time.
#[test]
fn a_certificate_that_is_not_valid_yet_is_no_error() {
    listen_to_log();
    let folder = Folder::new();
    let mut params = not_yet_valid(server_params());
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "too early");
    folder.write_pair("server", Ca::new("CA").sign(params));
    let tls = folder.tls();
    let words = "the certificate of CN=too early is not valid before 3000-01-01";
    assert_eq!(logged(words), 1);
    assert!(tls.days_left() > 300_000.0, "{}", tls.days_left());
}

/// Nor has one whose clock ran ahead; and a program that did not start could not be repaired from afar.
#[test]
fn a_certificate_that_has_expired_is_served_and_told_of() {
    listen_to_log();
    let folder = Folder::new();
    let (ca, mut params) = (Ca::new("CA"), expired(server_params()));
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "too late");
    folder.write_pair("server", ca.sign(params));
    let tls = folder.tls();
    let words = "the certificate of CN=too late has expired at 2002-01-01";
    assert_eq!(logged(words), 1);
    assert!(tls.days_left() < -8000.0, "{}", tls.days_left());
    let ended = UNIX_EPOCH + Duration::from_secs(1_009_843_200);
    assert_eq!(tls.expires(), ended, "the first second of 2002");
    let server = start(echo(), tls.clone());
    assert_eq!(server.certificate_expires(), Some(ended));
    for _ in 0..3 {
        shown_to_anybody(&server, &folder);
    }
    assert_eq!(logged(words), 1, "once a day");
    // The next one may have expired, too; and a good one ends it.
    let (chain, key) = ca.sign(expired(server_params()));
    folder.write_pair("server", (chain.clone(), key));
    tls.reload().unwrap();
    assert_eq!(shown_to_anybody(&server, &folder), der_of(chain.as_bytes()));
    folder.write_pair("server", ca.sign(server_params()));
    tls.reload().unwrap();
    assert!(tls.days_left() > 0.0);
    assert_eq!(server.certificate_expires(), Some(tls.expires()));
    folder.write("ca.pem", &ca.pem());
    let ca = folder.file("ca.pem");
    assert_eq!(client(&server, &Wish::new(&ca)).say("it").unwrap(), "it");
}

/// Clients take the one, and would refuse the other.
#[test]
fn an_expired_certificate_does_not_replace_one_that_is_valid() {
    let folder = Folder::new();
    let tls = folder.tls();
    let server = start(echo(), tls.clone());
    let ends = tls.expires();
    let late = Ca::new("CA").sign(expired(server_params()));
    folder.write_pair("server", late);
    let error = tls.reload().unwrap_err();
    assert!(matches!(error, TlsError::Expired { .. }), "{error}");
    let ca = folder.file("ca.pem");
    assert_eq!(client(&server, &Wish::new(&ca)).say("it").unwrap(), "it");
    assert_eq!(tls.expires(), ends);
    // With one that is valid soon it may be this machine's clock that is wrong, and others see it as valid.
    let soon = Ca::new("CA").sign(not_yet_valid(server_params()));
    folder.write_pair("server", soon);
    tls.reload().unwrap();
    assert_ne!(tls.expires(), ends);
}

#[test]
fn who_wants_valid_dates_is_not_served_without() {
    let folder = Folder::new();
    let ca = Ca::new("CA");
    let load = |params| {
        folder.write_pair("server", ca.sign(params));
        folder.files().require_valid_dates(true).load()
    };
    let error = load(expired(server_params())).unwrap_err();
    assert!(matches!(error, TlsError::Expired { .. }), "{error}");
    assert!(
        error.to_string().contains("expired at 2002-01-01"),
        "{error}"
    );
    let error = load(not_yet_valid(server_params())).unwrap_err();
    assert!(matches!(error, TlsError::NotYetValid { .. }), "{error}");
    let tls = load(server_params()).unwrap();
    folder.write_pair("server", ca.sign(not_yet_valid(server_params())));
    let error = tls.reload().unwrap_err();
    assert!(
        error.to_string().contains("not valid before 3000-01-01"),
        "{error}"
    );
}

#[test]
fn a_server_without_tls_has_no_certificate_that_expires() {
    let server = common::start(echo());
    assert_eq!(server.certificate_expires(), None);
}

/// A process that serves with the files of a folder, and the processes that replace it.
struct Process {
    child: Child,
    address: String,
    log: Arc<Mutex<String>>,
}

impl Process {
    /// The program is built beside this test.
    fn start(folder: &Folder) -> Process {
        let target = env::current_exe().unwrap();
        let program = target.ancestors().nth(2).unwrap();
        let program = program.join("examples/footprint_tls");
        assert!(
            program.exists(),
            "{} is missing: cargo build --examples --features tls",
            program.display()
        );
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let mut child = Command::new(program)
            .args([
                &address,
                folder.file("server.pem").to_str().unwrap(),
                folder.file("server.key").to_str().unwrap(),
            ])
            .env("RUST_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::<Mutex<String>>::default();
        let heard = Arc::clone(&log);
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                *heard.lock().unwrap() += &(line + "\n");
            }
        });
        let process = Process {
            child,
            address,
            log,
        };
        process.hear("starting → serving", 1);
        process
    }

    /// Waits until the log has the words so many times, or more often: a quick process has said more by then.
    fn hear(&self, words: &str, times: usize) {
        eventually(words, || {
            self.log.lock().unwrap().matches(words).count() >= times
        });
    }

    fn signal(id: u32, name: &str) {
        let sent = Command::new("kill").args([name, &id.to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// What a client is shown that looks at nothing.
    fn shows(&self, folder: &Folder) -> Vec<u8> {
        let ca = folder.file("ca.pem");
        let socket = TcpStream::connect(&self.address).unwrap();
        socket.set_read_timeout(Some(LONG)).unwrap();
        let mut client = Client::new(socket, &Wish::new(&ca).credulous());
        client.begin().expect("it is served");
        client.stream.conn.peer_certificates().unwrap()[0].to_vec()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.log.lock().unwrap());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A repaired program can be rolled out even if nobody has renewed the certificate, and so can a certificate.
#[test]
fn a_hot_restart_and_a_reload_go_on_with_an_expired_certificate() {
    let folder = Folder::new();
    let ca = Ca::new("CA");
    let write = |params| {
        let (chain, key) = ca.sign(params);
        folder.write_pair("server", (chain.clone(), key));
        der_of(chain.as_bytes())
    };
    let first = write(expired(server_params()));
    let mut process = Process::start(&folder);
    process.hear("has expired at 2002-01-01", 1);
    assert_eq!(process.shows(&folder), first);

    Process::signal(process.child.id(), "-USR2");
    process.hear("replaced by process ", 1);
    let ended = process.child.wait().unwrap();
    assert!(ended.success(), "{ended}");
    process.hear("has expired at 2002-01-01", 2);
    assert_eq!(process.shows(&folder), first);
    let log = process.log.lock().unwrap().clone();
    let (_, rest) = log.split_once("replaced by process ").unwrap();
    let digits = rest.split(|it: char| !it.is_ascii_digit()).next().unwrap();
    let successor = Successor(digits.parse().unwrap());

    let second = write(expired(server_params()));
    Process::signal(successor.0, "-HUP");
    eventually("it has reloaded", || process.shows(&folder) == second);
    let valid = write(server_params());
    Process::signal(successor.0, "-HUP");
    eventually("it has reloaded", || process.shows(&folder) == valid);
    Process::signal(successor.0, "-TERM");
    process.hear("stopped cleanly", 1);
    std::mem::forget(successor);
}

/// Ends with the test, if not before.
struct Successor(u32);

impl Drop for Successor {
    fn drop(&mut self) {
        Process::signal(self.0, "-KILL");
    }
}
