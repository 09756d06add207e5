//! Clients with which TLS fails. The log is limited to ten lines in a second, so this is a program of its own.
#![cfg(feature = "tls")]

mod common;
mod tls_support;

use std::sync::Arc;

use common::{echo, eventually};
use tls_support::*;

/// Each connection that fails makes one line, which says why, and observers are told the same.
#[test]
fn refused_clients_are_told_and_logged_once() {
    listen_to_log();
    let (folder, strangers) = (Folder::new(), Folder::new());
    let ca = Ca::new("its own");
    folder.write("clients.pem", &ca.pem());
    folder.write_pair("late", ca.sign(expired(client_params("late"))));
    folder.write_pair("server-only", {
        let mut params = client_params("wrong");
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        ca.sign(params)
    });
    let files = folder.files().client_ca(folder.file("clients.pem"));
    let failures = Arc::<Failures>::default();
    let server = builder(echo(), files.load().unwrap())
        .observer(Arc::clone(&failures))
        .start()
        .unwrap();
    let (ca, other_ca) = (folder.file("ca.pem"), strangers.file("ca.pem"));
    let without_h2 = |protocols: &[&[u8]]| Wish {
        protocols: protocols.iter().map(|it| it.to_vec()).collect(),
        ..Wish::new(&ca)
    };
    let cases = [
        (
            Wish::new(&ca),
            "CertificateRequired",
            "shows no certificate",
        ),
        (
            Wish::new(&ca).showing(&strangers, "client"),
            "UnknownCA",
            "is of an unknown CA",
        ),
        (
            Wish::new(&ca).showing(&folder, "late"),
            "CertificateExpired",
            "certificate has expired at 2002-01-01",
        ),
        (
            Wish::new(&ca).showing(&folder, "server-only"),
            "",
            "is not made for clients",
        ),
        (
            Wish::new(&other_ca),
            "UnknownIssuer",
            "does not accept the server's certificate",
        ),
        (
            without_h2(&[]),
            "NoApplicationProtocol",
            "does not offer HTTP/2",
        ),
        (
            without_h2(&[b"http/1.1", b"h3"]),
            "NoApplicationProtocol",
            "does not offer HTTP/2",
        ),
    ];
    for (wish, told, reason) in cases {
        let before = (logged(reason), logged("TLS with"));
        let told_before = failures.with(reason);
        let mut client = connect(&server, &wish.config());
        let error = client.begin().expect_err(reason).to_string();
        assert!(error.contains(told), "{error}");
        drop(client);
        eventually(reason, || logged(reason) == before.0 + 1);
        eventually("the connection is gone", || server.connections() == 0);
        assert_eq!(logged("TLS with"), before.1 + 1, "{reason}");
        assert_eq!(failures.with(reason), told_before + 1, "{reason}");
    }
    assert_eq!(failures.with(""), logged("TLS with"));
}
