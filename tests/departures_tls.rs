//! Over TLS, too, a connection that has to go hears of it first.
#![cfg(feature = "tls")]

mod common;
mod tls_support;

use common::{echo, eventually, unhurried};
use tls_support::*;

#[test]
fn an_idle_client_is_told_to_go() {
    let folder = Folder::new();
    let builder = builder(echo(), folder.tls()).max_connection_idle(unhurried(300));
    let server = builder.start().unwrap();
    let ca = folder.file("ca.pem");
    let mut client = client(&server, &Wish::new(&ca));
    assert_eq!(client.say("it").unwrap(), "it");
    let mut kinds = Vec::new();
    while let Ok((kind, ..)) = client.read_frame() {
        kinds.push(kind);
    }
    assert!(kinds.contains(&7), "GOAWAY: {kinds:?}");
    drop(client);
    eventually("it is gone", || server.connections() == 0);
}
