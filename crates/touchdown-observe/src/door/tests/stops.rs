//! The door is open until the program has stopped.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Instant;

use touchdown::lifecycle::{Hook, Phase};

use super::super::{Response, END_TIME};
use super::sockets::{end, Program, LONG};
use super::Answer;

#[test]
fn it_answers_while_the_program_drains_and_closes_and_until_it_has_stopped() {
    let (sender, closing) = mpsc::channel();
    let (goes_on, waits) = mpsc::channel::<()>();
    let program = Program::new(|_| Response::text(200, "here"));
    let in_flight = program.lifecycle.in_flight().enter_owned().unwrap();
    let hook = Hook::new("the test", move || {
        sender.send(())?;
        Ok(waits.recv()?)
    });
    program.lifecycle.hook(hook).unwrap();
    assert_eq!(program.get("/").text(), "here");

    program.lifecycle.shutdown("the test is over");
    let phases = program.lifecycle.subscribe();
    while program.lifecycle.phase() != Phase::Draining {
        phases.recv_timeout(LONG).unwrap();
    }
    assert_eq!(program.get("/").text(), "here");
    assert_eq!(program.lifecycle.phase(), Phase::Draining);

    drop(in_flight);
    closing.recv_timeout(LONG).unwrap();
    assert_eq!(program.get("/").text(), "here");
    assert_eq!(program.lifecycle.phase(), Phase::Closing);

    goes_on.send(()).unwrap();
    program.lifecycle.wait();
    end(program.door);
    assert!(TcpStream::connect(&program.address).is_err());
}

#[test]
fn no_connection_holds_up_the_drain() {
    let program = Program::new(|_| Response::text(200, ""));
    let _silent = program.connect();
    // Behind it in the line.
    program.get("/");
    let begun = Instant::now();
    program.stop();
    assert!(begun.elapsed() < LONG / 2);
}

const LARGE: usize = 32 << 20;

/// A program that has stopped with a large answer on its way, and the client that has asked for it.
fn with_an_answer_on_its_way() -> (Program, TcpStream, Vec<u8>) {
    let program = Program::new(|_| Response::text(200, "x".repeat(LARGE)));
    let mut stream = program.connect();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut first = vec![0];
    stream.read_exact(&mut first).unwrap();
    program.lifecycle.shutdown("the test is over");
    program.lifecycle.wait();
    (program, stream, first)
}

#[test]
fn what_is_on_its_way_as_the_program_stops_gets_there() {
    let (program, mut stream, mut bytes) = with_an_answer_on_its_way();
    stream.read_to_end(&mut bytes).unwrap();
    assert_eq!(Answer::read(&bytes, false).body.len(), LARGE);
    end(program.door);
    assert!(get_fails(&program.address));
}

#[test]
fn who_does_not_read_does_not_keep_the_door_open() {
    let (program, stream, _) = with_an_answer_on_its_way();
    let begun = Instant::now();
    end(program.door);
    assert!(begun.elapsed() < END_TIME + LONG / 4);
    drop(stream);
}

fn get_fails(address: &str) -> bool {
    TcpStream::connect(address).is_err()
}
