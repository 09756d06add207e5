//! The whole process stands still for a while, as SIGSTOP, `docker pause` or the migration of a machine does it, and
//! goes on. What its clients have sent meanwhile waits in the kernel. (`make pauses` tries much more of it, with processes
//! and clients of other makes.)
#![cfg(feature = "client")]

mod common;
mod lifecycle_support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use common::*;
use lifecycle_support::{bound, is_child, say as tell, Process};
use touchdown::lifecycle::{exit_code, Signals};
use touchdown::ServerBuilder;

/// What the child of each test does: it serves until it is told to stop, and says where.
fn serve(builder: ServerBuilder) -> ! {
    let lifecycle = planned(quick_plan()).signals(Signals::process());
    let server = builder.lifecycle(lifecycle).start().unwrap();
    tell(&format!("listening at {}", server.address()));
    let report = server.wait();
    tell(&report.to_string());
    let _: ExitCode = report.clone().into();
    std::process::exit(report.exit_code().into())
}

fn address_of(child: &mut Process) -> String {
    let line = child.hear("listening at");
    line.rsplit(' ').next().unwrap().to_owned()
}

/// Stops the process, with everything in it, and lets it go on after that time.
fn pause(child: &Process, time: Duration) {
    child.signal("STOP");
    let status = format!("/proc/{}/status", child.id());
    let deadline = Instant::now() + LONG;
    while !fs::read_to_string(&status).unwrap().contains("State:\tT") {
        assert!(Instant::now() < deadline, "it does not stop");
        thread::yield_now();
    }
    thread::sleep(time);
    child.signal("CONT");
}

fn connect(address: &str) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(LONG)).unwrap();
    client
}

fn read_frame(client: &mut TcpStream) -> ([u8; 9], Vec<u8>) {
    let mut header = [0; 9];
    client.read_exact(&mut header).expect("it is not cut");
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
    let mut payload = vec![0; length as usize];
    client.read_exact(&mut payload).expect("it is not cut");
    (header, payload)
}

/// Reads until the end of that call has come; acknowledges pings.
fn await_end_of(client: &mut TcpStream, stream: u8) {
    loop {
        match read_frame(client) {
            (header, payload) if (header[3], header[4]) == (6, 0) => {
                client.write_all(&frame(6, 1, 0, &payload)).unwrap();
            }
            (header, _) if header[3] == 1 && header[4] & 1 != 0 && header[8] == stream => return,
            _ => {}
        }
    }
}

fn end(child: Process) {
    child.signal("TERM");
    let end = child.end();
    assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
}

#[test]
fn a_client_whose_answer_to_the_keepalive_was_not_read_yet_is_not_taken_for_dead() {
    let _bound = bound();
    let timeout = Duration::from_millis(500);
    if is_child() {
        serve(builder(echo()).keepalive(Duration::from_millis(300), timeout));
    }
    let test = "a_client_whose_answer_to_the_keepalive_was_not_read_yet_is_not_taken_for_dead";
    let mut child = Process::start(test);
    let mut client = connect(&address_of(&mut child));
    client.write_all(PREFACE).unwrap();
    let ping = loop {
        let (header, payload) = read_frame(&mut client);
        if header[3] == 6 {
            break payload;
        }
    };
    // The answer comes in time, to a process that stands still for longer than it had.
    let acknowledge = frame(6, 1, 0, &ping);
    let answer = thread::spawn({
        let mut client = client.try_clone().unwrap();
        let early = timeout / 5;
        move || {
            thread::sleep(early);
            client.write_all(&acknowledge).unwrap();
        }
    });
    pause(&child, timeout * 4);
    answer.join().unwrap();
    client.write_all(&small_call(1)).unwrap();
    await_end_of(&mut client, 1);
    drop(client);
    end(child);
}

#[test]
fn who_could_not_be_heard_in_time_has_begun_to_speak_in_time() {
    let _bound = bound();
    let time = Duration::from_millis(600);
    if is_child() {
        serve(builder(echo()).handshake_timeout(time));
    }
    let mut child = Process::start("who_could_not_be_heard_in_time_has_begun_to_speak_in_time");
    let address = address_of(&mut child);
    let mut clients: Vec<TcpStream> = (0..40).map(|_| connect(&address)).collect();
    // The server speaks first: they are accepted.
    for client in &mut clients {
        read_frame(client);
    }
    let speak = thread::spawn(move || {
        for client in &mut clients {
            client.write_all(PREFACE).unwrap();
            client.write_all(&small_call(1)).unwrap();
        }
        clients
    });
    pause(&child, time * 3);
    for mut client in speak.join().unwrap() {
        await_end_of(&mut client, 1);
    }
    end(child);
}

#[test]
fn who_connects_after_a_long_rest_has_all_of_its_time_to_speak() {
    let _bound = bound();
    let time = Duration::from_millis(1000);
    if is_child() {
        serve(builder(echo()).handshake_timeout(time));
    }
    let mut child = Process::start("who_connects_after_a_long_rest_has_all_of_its_time_to_speak");
    let address = address_of(&mut child);
    thread::sleep(time * 2);
    let mut client = connect(&address);
    read_frame(&mut client);
    thread::sleep(time / 4);
    client.write_all(PREFACE).unwrap();
    client.write_all(&small_call(1)).unwrap();
    await_end_of(&mut client, 1);
    drop(client);
    end(child);
}

#[test]
fn requests_that_wait_unread_in_a_drain_are_served() {
    let _bound = bound();
    if is_child() {
        serve(builder(echo()));
    }
    let mut child = Process::start("requests_that_wait_unread_in_a_drain_are_served");
    let address = address_of(&mut child);
    let mut clients: Vec<TcpStream> = (0..20).map(|_| connect(&address)).collect();
    for client in &mut clients {
        client.write_all(PREFACE).unwrap();
        client.write_all(&small_call(1)).unwrap();
        await_end_of(client, 1);
    }
    child.signal("TERM");
    // All are told to go, and none has answered.
    for client in &mut clients {
        while read_frame(client).0[3] != 7 {}
    }
    let speak = thread::spawn(move || {
        for client in &mut clients {
            client.write_all(&small_call(3)).unwrap();
        }
        clients
    });
    pause(&child, Duration::from_millis(1500));
    for mut client in speak.join().unwrap() {
        await_end_of(&mut client, 3);
    }
    let end = child.end();
    assert_eq!(end.code, Some(exit_code::CLEAN.into()), "{end:?}");
    assert!(end.stdout.contains("40 completed"), "{}", end.stdout);
}
