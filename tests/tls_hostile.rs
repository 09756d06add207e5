//! Clients of a listener with TLS that mean harm, or know no better.
#![cfg(feature = "tls")]

mod common;
mod tls_support;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{echo, eventually, text, unhurried, Chance, LONG};
use rustls::ClientConnection;
use tls_support::*;
use touchdown::lifecycle::exit_code;
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::{Server, Service};

const HANDSHAKE: Duration = unhurried(500);

fn start_impatient(folder: &Folder) -> Server {
    let builder = builder(echo(), folder.tls()).handshake_timeout(HANDSHAKE);
    builder.start().unwrap()
}

fn raw(server: &Server) -> TcpStream {
    let socket = TcpStream::connect(server.address().to_string()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket
}

/// The first bytes of a client that goes about it the right way.
fn client_hello(folder: &Folder) -> Vec<u8> {
    let ca = folder.file("ca.pem");
    let name = "localhost".try_into().unwrap();
    let mut connection = ClientConnection::new(Wish::new(&ca).config(), name).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}

/// It is served still, and nothing is left of the others.
fn goes_on(server: Server, folder: &Folder) {
    eventually("they are gone", || server.connections() == 0);
    let ca = folder.file("ca.pem");
    assert_eq!(client(&server, &Wish::new(&ca)).say("it").unwrap(), "it");
    let report = server.shutdown();
    assert_eq!(report.exit_code(), exit_code::CLEAN, "{report}");
}

#[test]
fn who_does_not_finish_the_handshake_is_cut() {
    let folder = Folder::new();
    let server = start_impatient(&folder);
    let hello = client_hello(&folder);
    let mut silent = [raw(&server), raw(&server), raw(&server), raw(&server)];
    // Nothing; one byte; half a hello; a whole one, and not a word more.
    for (client, count) in silent.iter_mut().zip([0, 1, hello.len() / 2, hello.len()]) {
        client.write_all(&hello[..count]).unwrap();
    }
    let begin = Instant::now();
    for client in &mut silent {
        // An end of whichever kind.
        let _ = client.read_to_end(&mut Vec::new());
    }
    let took = begin.elapsed();
    assert!(took < LONG / 2, "it took {took:?}");
    goes_on(server, &folder);
}

/// It does not go by the last byte that came.
#[test]
fn who_is_slow_on_purpose_is_cut() {
    let folder = Folder::new();
    let server = start_impatient(&folder);
    let mut slow = raw(&server);
    slow.set_nodelay(true).unwrap();
    let hello = client_hello(&folder);
    let mut sent = 0;
    for byte in hello.chunks(1).take(hello.len() - 1).cycle() {
        if slow.write_all(byte).is_err() || sent == 10_000 {
            break;
        }
        sent += 1;
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(sent < 10_000, "it is never cut");
    goes_on(server, &folder);
}

/// The server has closed its side, and reads what still comes so that its alert arrives: but not for ever.
#[test]
fn who_goes_on_behind_a_failed_handshake_is_cut() {
    let folder = Folder::new();
    let server = start(echo(), folder.tls());
    let mut client = raw(&server);
    client.write_all(&[22, 3, 3, 0, 1, 99]).unwrap();
    // An alert, and the end.
    let _ = client.read_to_end(&mut Vec::new());
    let begin = Instant::now();
    while client.write_all(&[0]).is_ok() {
        assert!(begin.elapsed() < LONG, "it is never cut");
        std::thread::sleep(Duration::from_millis(10));
    }
    goes_on(server, &folder);
}

#[test]
fn a_hello_may_come_byte_by_byte() {
    struct Slow(TcpStream);
    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(&mut buffer[..1])
        }
    }
    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write(&bytes[..1])
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let folder = Folder::new();
    let server = start(echo(), folder.tls());
    let ca = folder.file("ca.pem");
    let socket = raw(&server);
    socket.set_nodelay(true).unwrap();
    let mut client = Client::new(Slow(socket), &Wish::new(&ca).config());
    client.begin().unwrap();
    assert_eq!(client.say("slow").unwrap(), "slow");
}

#[test]
fn garbage_is_no_handshake() {
    let folder = Folder::new();
    let server = start(echo(), folder.tls());
    let hello = client_hello(&folder);
    let mut chance = Chance(7);
    for round in 0..500 {
        let mut bytes = hello.clone();
        match round % 5 {
            // A record of the largest size, and one that is larger.
            0 => bytes = [&[22, 3, 3, 0x40, 0], &[1; 0x4000][..]].concat(),
            1 => bytes = [&[22, 3, 3, 0xff, 0xff], &[1; 0xffff][..]].concat(),
            // A hello that says that it is 16 MB long.
            2 => bytes = [&[22, 3, 3, 0x40, 0, 1, 0xff, 0xff, 0xff], &[0; 0x3ffc][..]].concat(),
            // One bit or more turned over.
            3 => {
                for _ in 0..=chance.below(8) {
                    let place = chance.below(bytes.len() as u64) as usize;
                    bytes[place] ^= 1 << chance.below(8);
                }
            }
            _ => bytes = (0..100).map(|_| chance.below(256) as u8).collect(),
        }
        let mut client = raw(&server);
        // The server may have closed already.
        let _ = client.write_all(&bytes);
        let _ = client.shutdown(Shutdown::Write);
        let _ = client.read_to_end(&mut Vec::new());
    }
    goes_on(server, &folder);
}

/// Once the handshake is over, too.
#[test]
fn a_record_that_was_tampered_with_ends_the_connection() {
    let folder = Folder::new();
    let server = start(echo(), folder.tls());
    let ca = folder.file("ca.pem");
    let mut client = client(&server, &Wish::new(&ca));
    assert_eq!(client.say("fine").unwrap(), "fine");
    let record = [&[23, 3, 3, 0, 40][..], &[1; 40]].concat();
    client.stream.sock.write_all(&record).unwrap();
    let error = loop {
        match client.read_frame() {
            Ok(_) => {}
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("BadRecordMac"), "{error}");
    drop(client);
    goes_on(server, &folder);
}

/// Records without content cost the client little, and the server no stack.
#[test]
fn a_flood_of_small_records_is_only_slow() {
    let folder = Folder::new();
    let server = start(echo(), folder.tls());
    let ca = folder.file("ca.pem");
    let mut client = client(&server, &Wish::new(&ca));
    let (mut flood, mut count) = (Vec::new(), 0);
    // A ping, in records of one byte.
    while count < 20_000 {
        for byte in b"\0\0\x08\x06\x01\0\0\0\0ack-ack!" {
            client.stream.conn.writer().write_all(&[*byte]).unwrap();
            client.stream.conn.write_tls(&mut flood).unwrap();
            count += 1;
        }
    }
    client.stream.sock.write_all(&flood).unwrap();
    assert_eq!(client.say("after").unwrap(), "after");
}

/// Each asks the server for new keys and an answer (RFC 8446, 4.6.3). That costs it more than the client.
#[test]
fn a_flood_of_key_updates_ends_the_connection() {
    let folder = Folder::new();
    let server = start(echo(), folder.tls());
    let ca = folder.file("ca.pem");
    let mut client = client(&server, &Wish::new(&ca));
    client.stream.sock.set_nodelay(true).unwrap();
    // Now and then they are as they should be.
    for _ in 0..100 {
        client.stream.conn.refresh_traffic_keys().unwrap();
        assert_eq!(client.say("renewed").unwrap(), "renewed");
    }
    let mut flood = Vec::new();
    for _ in 0..1000 {
        client.stream.conn.refresh_traffic_keys().unwrap();
        client.stream.conn.write_tls(&mut flood).unwrap();
    }
    // The server may have closed before all is written.
    let _ = client.stream.sock.write_all(&flood);
    let end = loop {
        if let Err(error) = client.read_frame() {
            break error.kind();
        }
    };
    assert_ne!(end, std::io::ErrorKind::WouldBlock, "it goes on");
    drop(client);
    goes_on(server, &folder);
}

/// With windows so large that flow control stops nothing, only the socket does.
#[test]
fn what_a_client_does_not_read_is_not_piled_up_for_it() {
    const PIECE: usize = 64 << 10;
    const COUNT: usize = 1000;
    let sent = Arc::new(AtomicUsize::new(0));
    let service = {
        let sent = Arc::clone(&sent);
        let name = Service::builder("test.Echo");
        name.server_streaming("Say", move |_, _: StringValue, replies| {
            let piece = text("x".repeat(PIECE));
            for _ in 0..COUNT {
                replies.send(&piece)?;
                sent.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    };
    let folder = Folder::new();
    let server = start(service.build(), folder.tls());
    let ca = folder.file("ca.pem");
    let mut client = client(&server, &Wish::new(&ca));
    let most = [0, 4, 0x7f, 0xff, 0xff, 0xff];
    client.write_frame(4, 0, 0, &most).unwrap();
    let before = resident_kib();
    let call = client.send("it").unwrap();
    eventually("it begins", || sent.load(Ordering::Relaxed) > 0);
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        let growth = resident_kib().saturating_sub(before);
        assert!(growth < 40 << 10, "grew by {growth} KiB");
    }
    assert!(sent.load(Ordering::Relaxed) < COUNT, "it does not wait");
    // It reads late, and misses nothing.
    let all = client.reply_to(call).unwrap();
    assert!(all.len() > COUNT * PIECE, "only {} bytes", all.len());
    assert_eq!(all.matches('x').count(), COUNT * PIECE);
}

#[test]
fn a_client_that_never_reads_does_not_hold_up_the_end() {
    let folder = Folder::new();
    let server = start(echo(), folder.tls());
    let ca = folder.file("ca.pem");
    let mut client = client(&server, &Wish::new(&ca));
    let socket = &client.stream.sock;
    let limit = Some(Duration::from_millis(500));
    socket.set_write_timeout(limit).unwrap();
    let mut sent = 0;
    while sent < 20_000 && client.send(&"x".repeat(100)).is_ok() {
        sent += 1;
    }
    let begin = Instant::now();
    let report = server.shutdown();
    let took = begin.elapsed();
    assert!(took < LONG, "{took:?} after {sent} calls: {report}");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find(|it| it.starts_with("VmRSS:")).unwrap();
    resident.split_whitespace().nth(1).unwrap().parse().unwrap()
}
