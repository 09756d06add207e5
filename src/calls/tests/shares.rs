//! What one connection may take of what all need.

use super::*;

/// One more client of this server.
fn another(server: &Server) -> Client {
    server.transport.connect(server.runner.shared())
}

/// A handler of a stream that says how it ended when that was not its caller's doing.
fn listen(call: &Arc<Call>, _: Option<Message>) {
    while let Received::Message(_) = call.receive(Wait::Forever) {}
    call.finish(None, ok(), Handled::Yes);
}

fn streams(setup: Setup) -> Server {
    let setup = setup.method("/t/Chat", (true, true), echo_stream);
    let listens = setup.method("/t/Listen", (true, false), listen);
    listens.unary("/t/Echo", echo).start()
}

fn answers(client: &Client) {
    let line = client.call("/t/Echo", &[b"hello"]);
    assert_eq!(line.sent(), [headers(), message(b"hello"), status(OK, "")]);
}

#[test]
fn silent_streams_keep_nobody_waiting_and_go_on_when_they_are_spoken_to() {
    let server = streams(Setup::new(2, 100));
    let lines: Vec<_> = (0..40)
        .map(|_| server.client.call("/t/Chat", &[]))
        .collect();
    wait_until(|| server.runner.load().aside == 40);
    answers(&server.client);
    answers(&another(&server));
    for line in &lines {
        line.send(b"word");
        line.sent_when(|sent| sent.last() == Some(&message(b"word")));
        line.say_all();
        assert_eq!(line.status(), (OK, String::new()));
    }
    wait_until(|| server.runner.load().aside == 0);
    answers(&server.client);
}

#[test]
fn a_caller_that_takes_nothing_keeps_nobody_waiting() {
    let server = streams(Setup::new(1, 100));
    let lines: Vec<_> = (0..5)
        .map(|_| {
            let line = server.client.call("/t/Chat", &[]);
            line.take(false);
            line.send(b"1");
            line.send(b"2");
            line.say_all();
            line
        })
        .collect();
    wait_until(|| server.runner.load().aside == 5);
    answers(&server.client);
    for line in lines {
        line.take(true);
        assert_eq!(line.status().0, OK);
    }
}

#[test]
fn a_stream_without_a_thread_gives_way_to_another_connection() {
    let server = streams(Setup {
        stream_threads: 4,
        ..Setup::new(3, 10)
    });
    // Two have threads of their own, three have places, and one waits for one.
    let silent: Vec<_> = (0..6)
        .map(|_| server.client.call("/t/Listen", &[]))
        .collect();
    wait_until(|| {
        let load = server.runner.load();
        (load.aside, load.running, load.waiting) == (2, 3, 1)
    });
    answers(&another(&server));
    let mut ended = 0;
    for line in silent {
        line.say_all();
        let text = "other calls needed the thread of this stream, which waited for its caller";
        let (code, why) = line.status();
        if code == OK {
            continue;
        }
        ended += 1;
        assert_eq!((code, why), (RESOURCE_EXHAUSTED, text.to_owned()));
        assert_eq!(line.pushback(), Some(-1));
    }
    // The one that waits takes the place of the first that is ended, and somebody may look before that of the second is taken.
    assert!((1..=3).contains(&ended), "{ended} were ended");
}

#[test]
fn a_stream_gives_way_to_its_own_connection_only_after_a_while() {
    let start = |stall| {
        streams(Setup {
            stream_threads: 0,
            stall,
            ..Setup::new(1, 10)
        })
    };
    let server = start(LONG);
    let silent = server.client.call("/t/Listen", &[]);
    wait_until(|| server.runner.load().running == 1);
    let waits = server.client.call("/t/Echo", &[b"1"]);
    wait_until(|| server.runner.load().waiting == 1);
    server.settle();
    assert!(silent.has_got_nothing() && waits.has_got_nothing());
    silent.say_all();
    assert_eq!([silent.status().0, waits.status().0], [OK, OK]);

    let server = start(Duration::from_millis(1));
    let silent = server.client.call("/t/Listen", &[]);
    wait_until(|| server.runner.load().running == 1);
    answers(&server.client);
    assert_eq!(silent.status().0, RESOURCE_EXHAUSTED);
    let landed = [server.landed(), server.landed()];
    assert!(landed.contains(&Landed::Cut), "{landed:?}");
}

#[test]
fn who_has_most_in_the_backlog_gives_way_and_connections_take_turns() {
    let (handler, runs, go) = gate();
    let server = Setup::new(1, 3).unary("/t/Gate", handler).start();
    let all = [b"1", b"2", b"3", b"4"].map(|it| server.client.call("/t/Gate", &[it]));
    wait_until(|| server.runner.load().waiting == 3);
    let other = another(&server).call("/t/Gate", &[b"5"]);
    // One gives way to the newcomer.
    assert_eq!(all[3].status().0, RESOURCE_EXHAUSTED);
    let mut order = Vec::new();
    for _ in 0..4 {
        let call = runs.recv_timeout(LONG).unwrap();
        order.push(call.noted_connection());
        go.send(()).unwrap();
    }
    let (first, second) = (order[0], order[2]);
    assert_eq!(order, [first, first, second, first]);
    assert_ne!(first, second);
    assert_eq!(other.status().0, OK);
    assert!(all[..3].iter().all(|it| it.status().0 == OK));
}

#[test]
fn a_drain_and_a_stop_find_the_streams_that_have_no_place() {
    let server = streams(Setup::new(1, 100));
    let lines: Vec<_> = (0..4).map(|_| server.client.call("/t/Chat", &[])).collect();
    wait_until(|| server.runner.load().aside == 4);
    server.drain([unlimited(), unlimited(), unlimited()]);
    lines[0].say_all();
    assert_eq!(lines[0].status().0, OK);
    assert_eq!(server.runner.tell_to_stop(), 3);
    for line in &lines[1..] {
        line.status();
    }
    wait_until(|| server.runner.load().aside == 0);
}

/// A client of which so many calls are open, and that takes no answer, or does.
fn shows(client: &Client, open: u32, takes: bool) {
    client.take(takes);
    client.shows(View {
        open,
        ..View::default()
    });
}

#[test]
fn who_takes_no_answers_is_refused_and_others_are_answered() {
    let mut setup = Setup::new(1, 1)
        .unary("/t/Echo", echo)
        .unary("/t/Check", echo);
    setup.methods[1].prompt = true;
    let server = setup.start();
    for (path, limit) in [("/t/Echo", 2), ("/t/Check", PROMPT_CALLS)] {
        let other = another(&server);
        let ask = |client: &Client| {
            let line = client.call(path, &[b"?"]);
            let status = line.status().0;
            server.settle();
            (line, status)
        };
        let mut open = Vec::new();
        while open.len() < limit + 5 {
            shows(&server.client, open.len() as u32 + 1, false);
            let (line, status) = ask(&server.client);
            open.push(line);
            assert!(
                status == OK || open.len() > limit + 1,
                "{path}: {}",
                open.len()
            );
            assert!(
                status == RESOURCE_EXHAUSTED || open.len() < limit + 4,
                "{path}"
            );
        }
        // Each of the other's is taken at once.
        shows(&other, 1, true);
        for _ in 0..20 {
            assert_eq!(ask(&other).1, OK, "{path}");
        }
        open.iter().for_each(|it| it.take(true));
        server.settle();
        shows(&server.client, 1, true);
        assert_eq!(ask(&server.client).1, OK, "{path}");
    }
}
