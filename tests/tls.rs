//! TLS and mutual TLS, with clients that behave.
#![cfg(feature = "tls")]

mod common;
mod tls_support;

use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{echo, eventually, unary, LONG};
use tls_support::*;
use touchdown::lifecycle::exit_code;
use touchdown::{Call, Interceptor, Listen, PeerCertificate, Status, Tls, TlsError};

#[test]
fn calls_come_and_go_with_both_versions() {
    let folder = Folder::new();
    let server = start(echo(), folder.tls());
    let ca = folder.file("ca.pem");
    for version in [Version::Tls12, Version::Tls13] {
        let mut wish = Wish::new(&ca);
        wish.version = version;
        let mut client = client(&server, &wish);
        for text in ["one", "two"] {
            assert_eq!(client.say(text).unwrap(), text);
        }
    }
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    assert_eq!(report.calls.completed, 4);
}

#[test]
fn listeners_with_tls_and_without_are_one_server() {
    let folder = Folder::new();
    let path = folder.file("server.sock");
    let server = builder(echo(), folder.tls())
        .address("127.0.0.1:0")
        .listen(Listen::new(format!("unix:{}", path.display())).tls(folder.tls()))
        .start()
        .unwrap();
    let ca = folder.file("ca.pem");
    let wish = Wish::new(&ca);
    assert_eq!(client(&server, &wish).say("tcp").unwrap(), "tcp");
    let socket = UnixStream::connect(&path).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    let mut unix = Client::new(socket, &wish.config());
    unix.begin().unwrap();
    assert_eq!(unix.say("unix").unwrap(), "unix");
    let plain = common::channel_to(&server.addresses()[1].to_string());
    let plain = touchdown::client::Client::new(&plain);
    assert_eq!(common::say(&plain, "plain").unwrap(), "plain");
}

struct Keeper(Arc<Mutex<Vec<Option<PeerCertificate>>>>);

impl Interceptor for Keeper {
    fn before(&self, call: &Call) -> Result<(), Status> {
        let certificate = call.peer_certificate();
        let is_known = certificate.is_some();
        self.0.lock().unwrap().push(certificate);
        match is_known {
            true => Ok(()),
            false => Err(Status::permission_denied("who are you?")),
        }
    }
}

#[test]
fn an_interceptor_sees_who_calls() {
    let folder = Folder::new();
    let seen = Arc::default();
    let files = folder.files().client_ca_optional(folder.file("ca.pem"));
    let server = builder(echo(), files.load().unwrap())
        .interceptor(Keeper(Arc::clone(&seen)))
        .start()
        .unwrap();
    let ca = folder.file("ca.pem");
    for version in [Version::Tls12, Version::Tls13] {
        let mut wish = Wish::new(&ca).showing(&folder, "client");
        wish.version = version;
        let mut known = client(&server, &wish);
        assert_eq!(known.say("me").unwrap(), "me");
        let all = &seen;
        let seen = all.lock().unwrap().pop().unwrap().unwrap();
        assert_eq!(seen.common_name(), Some("drone-7"));
        assert_eq!(seen.dns_names(), ["drone-7.fleet"]);
        assert_eq!(seen.uris(), ["spiffe://fleet/drone-7"]);
        assert_eq!(seen.serial_number(), [1, 2, 3]);
        let pem = std::fs::read(folder.file("client.pem")).unwrap();
        assert_eq!(seen.der(), der_of(&pem));
        assert_eq!(seen.sha256()[..], sha256(seen.der())[..]);
        // It is read once for all calls of the connection.
        assert_eq!(known.say("again").unwrap(), "again");
        assert_eq!(
            all.lock().unwrap().pop().unwrap().unwrap().der().as_ptr(),
            seen.der().as_ptr()
        );
    }
    let mut unknown = client(&server, &Wish::new(&ca));
    assert!(unknown.say("me").is_err());
    assert!(seen.lock().unwrap().pop().unwrap().is_none());
}

/// By the implementation of the cipher suites, since there is no other at hand.
fn sha256(bytes: &[u8]) -> Vec<u8> {
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let suite = suite.tls13().unwrap();
    suite.common.hash_provider.hash(bytes).as_ref().to_vec()
}

#[test]
fn a_reload_is_for_new_connections() {
    let folder = Folder::new();
    let tls = folder.tls();
    let server = start(echo(), tls.clone());
    let old_ca = folder.file("ca.pem");
    let mut old = client(&server, &Wish::new(&old_ca));
    let next = Folder::new();
    let new_ca = next.file("ca.pem");
    // Not both at once: in between they do not fit.
    std::fs::copy(next.file("server.pem"), folder.file("server.pem")).unwrap();
    let error = tls.reload().unwrap_err();
    assert!(matches!(error, TlsError::WrongKey { .. }), "{error}");
    assert_eq!(client(&server, &Wish::new(&old_ca)).say("1").unwrap(), "1");
    std::fs::copy(next.file("server.key"), folder.file("server.key")).unwrap();
    server.lifecycle().reload();
    eventually("new connections get the new one", || {
        let mut client = connect(&server, &Wish::new(&new_ca).config());
        client.begin().is_ok() && client.say("2").unwrap() == "2"
    });
    assert_eq!(old.say("still here").unwrap(), "still here");
    assert!(connect(&server, &Wish::new(&old_ca).config())
        .begin()
        .is_err());
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let folder = Folder::new();
    let ca = Ca::new("CA");
    let (certificate, key) = ca.sign(server_params());
    folder.write("empty", "");
    folder.write(
        "broken",
        "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n",
    );
    let no_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    folder.write("no-der", no_der);
    folder.write("other.key", &key);
    folder.write("both", &format!("{certificate}{key}"));
    let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    folder.write("encrypted.key", &encrypted);
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    folder.write("encrypted-old.key", old);
    let no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    folder.write("no-der.key", no_key);
    let load = |chain: &str, key: &str| {
        let loaded = Tls::from_pem_files(folder.file(chain), folder.file(key)).load();
        loaded.map(|_| ()).map_err(|error| error.to_string())
    };
    let wrong = [
        ("missing.pem", "server.key", "cannot read", "missing.pem"),
        ("server.pem", "missing.key", "No such file", "missing.key"),
        ("empty", "server.key", "no certificate in PEM", "empty"),
        (
            "server.key",
            "server.key",
            "no certificate in PEM",
            "server.key",
        ),
        ("server.pem", "empty", "no private key in PEM", "empty"),
        ("server.pem", "server.pem", "no private key", "server.pem"),
        ("broken", "server.key", "cannot be used", "broken"),
        ("no-der", "server.key", "cannot be used", "no-der"),
        ("server.pem", "no-der.key", "cannot be used", "no-der.key"),
        ("server.pem", "other.key", "does not belong", "other.key"),
        ("server.pem", "encrypted.key", "encrypted", "encrypted.key"),
        ("server.pem", "encrypted-old.key", "is encrypted", "old.key"),
    ];
    for (chain, key, what, file) in wrong {
        let error = load(chain, key).expect_err(what);
        assert!(error.contains(what) && error.contains(file), "{error}");
    }
    load("server.pem", "server.key").unwrap();
    load("both", "both").unwrap();
    for (ca, what) in [("empty", "no certificate"), ("no-der", "that of a CA")] {
        let files = folder.files().client_ca(folder.file(ca));
        let error = files.load().unwrap_err().to_string();
        assert!(error.contains(what) && error.contains(ca), "{error}");
    }
}

/// Sends the requests, and only then waits for the end of the server.
#[test]
fn a_stop_lets_calls_land_and_says_goodbye() {
    let folder = Folder::new();
    let (begun, is_begun) = crossbeam_channel::unbounded();
    let service = unary(move |call, request| {
        begun.send(()).unwrap();
        assert!(call.draining().wait_timeout(LONG), "the server drains");
        Ok(request)
    });
    let server = start(service, folder.tls());
    let ca = folder.file("ca.pem");
    let mut client = client(&server, &Wish::new(&ca));
    let calls = ["one", "two", "three"].map(|it| (client.send(it).unwrap(), it));
    calls
        .iter()
        .for_each(|_| is_begun.recv_timeout(LONG).unwrap());
    let stop = std::thread::spawn(|| server.shutdown());
    let mut left = calls.to_vec();
    let mut rest = Vec::new();
    // One frame after the other, of whichever call, until the server has closed.
    let end = loop {
        match client.read_frame() {
            Ok((1, flags, stream, _)) if flags & 1 != 0 => left.retain(|it| it.0 != stream),
            Ok((_, _, _, payload)) => rest.extend(payload),
            Err(error) => break error,
        }
    };
    assert!(left.is_empty(), "{left:?} got no answer");
    assert!(client.told_to_go);
    // With close_notify; without, rustls has another error for it.
    assert_eq!(end.to_string(), "failed to fill whole buffer");
    drop(client);
    let report = stop.join().unwrap();
    assert_eq!(
        (report.exit_code(), report.calls.completed),
        (0, 3),
        "{report}"
    );
}

#[test]
fn connections_that_do_nothing_do_not_hold_up_a_drain() {
    let folder = Folder::new();
    let server = start(echo(), folder.tls());
    let (ca, address) = (folder.file("ca.pem"), server.address().to_string());
    let config = Wish::new(&ca).config();
    let idle: Vec<_> = (0..10)
        .map(|_| {
            let mut client = connect(&server, &config);
            client.begin().unwrap();
            client
        })
        .collect();
    // In the middle of a handshake, and before it.
    let mut halves: Vec<_> = (0..3)
        .map(|_| TcpStream::connect(&address).unwrap())
        .collect();
    halves[0].write_all(&[22, 3, 1, 1, 0, 1]).unwrap();
    eventually("all are there", || server.connections() == 13);
    let begin = Instant::now();
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(4), "it took {took:?}");
    drop((idle, halves));
}

/// Somebody else's implementation, where it is installed.
#[test]
fn openssl_agrees() {
    let folder = Folder::new();
    let server = start(echo(), folder.mutual());
    let address = server.address().to_string();
    for (version, cipher) in [("-tls1_2", "ECDHE"), ("-tls1_3", "TLS_AES")] {
        let openssl = |more: &[&str], files: &[(&str, PathBuf)]| {
            let mut command = std::process::Command::new("timeout");
            command.args(["60", "openssl", "s_client", "-connect", &address]);
            command.args([version, "-alpn", "h2", "-verify_return_error"]);
            command.args(more).arg("-CAfile").arg(folder.file("ca.pem"));
            for (option, file) in files {
                command.arg(option).arg(file);
            }
            command.stdin(std::process::Stdio::null());
            let output = command.output().expect("timeout is there");
            let text = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&text).into_owned()
        };
        let files = [
            ("-cert", folder.file("client.pem")),
            ("-key", folder.file("client.key")),
        ];
        let said = openssl(&[], &files);
        if said.contains("No such file or directory") && said.starts_with("timeout") {
            println!("openssl is not installed: skipped");
            return;
        }
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        assert!(said.contains("ALPN protocol: h2"), "{said}");
        assert!(said.contains(cipher), "{said}");
    }
}
