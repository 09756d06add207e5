//! What is a request, and what is in it.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::client::Client;
use super::super::request::Request;
use super::super::{Answers, Response, HEAD_LIMIT, LEAVE_TIME, REQUEST_TIME};
use super::{Act, Answer, Script};
use std::time::Instant;

/// Answers with what it has understood.
fn answers(local_names_only: bool) -> Answers {
    let handler = |it: &Request<'_>| {
        let parameters: Vec<_> = it.parameters("p").collect();
        Response::text(200, format!("{} {parameters:?} {:?}", it.path, it.accept))
    };
    Answers {
        handler: Box::new(handler),
        local_names_only,
    }
}

fn answer(request: &str) -> Answer {
    let bytes = answers(true).to(request.as_bytes());
    Answer::read(&bytes, request.starts_with("HEAD "))
}

fn get(target: &str) -> Answer {
    answer(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

fn from_host(host: &str) -> u16 {
    answer(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).status
}

#[test]
fn a_path_is_decoded() {
    assert_eq!(get("/readyz/the%20disk").text(), "/readyz/the disk [] None");
    assert_eq!(get("/a%2fb%C3%A4+").text(), "/a/bä+ [] None");
    assert_eq!(get("http://127.0.0.1:9464/a?b").text(), "/a [] None");
    assert_eq!(get("HTTP://localhost").text(), "/ [] None");
    for bad in [
        "/%",
        "/%2",
        "/%zz",
        "/%+1",
        "/%00",
        "/%0a",
        "/%ff",
        "/ä",
        "*",
        "a",
        "http://h?/",
        "https://h/",
    ] {
        assert_eq!(get(bad).status, 400, "{bad}");
    }
}

#[test]
fn parameters_are_decoded() {
    let said = get("/?p=a&q=b&p=c%26+d&p&p=%zz&%70=e").text();
    assert_eq!(said, r#"/ ["a", "c& d", "", "e"] None"#);
}

#[test]
fn a_head_is_answered_with_the_length_of_what_it_leaves_out() {
    let head = answer("HEAD /x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.head, get("/x").head);
    let refused = answer("HEAD /% HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((refused.status, refused.body.len()), (400, 0));
}

#[test]
fn an_answer_is_stored_nowhere_and_runs_nothing() {
    let answer = get("/");
    for line in [
        "Cache-Control: no-store",
        "Connection: close",
        "Content-Type: text/plain; charset=utf-8",
        "X-Content-Type-Options: nosniff",
    ] {
        assert!(answer.has(line), "{line}: {}", answer.head);
    }
    let policy = "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; ";
    assert!(answer.head.contains(policy), "{}", answer.head);
    assert!(!answer.head.contains("Server") && !answer.head.contains("Date"));
}

#[test]
fn only_get_and_head_are_understood() {
    for method in [
        "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "X",
    ] {
        let answer = answer(&format!("{method} / HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!(answer.status, 405, "{method}");
        assert!(answer.has("Allow: GET, HEAD"));
    }
}

#[test]
fn a_body_is_refused_and_none_is_not() {
    let with = |header: &str| {
        answer(&format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n"
        ))
    };
    assert_eq!(with("Content-Length: 0").status, 200);
    assert_eq!(with("Content-Length: 1").status, 413);
    assert_eq!(
        with("content-length: 99999999999999999999999999").status,
        413
    );
    assert_eq!(with("Content-Length: 0\r\nContent-Length: 5").status, 413);
    assert_eq!(with("Transfer-Encoding: chunked").status, 413);
    for bad in ["", "-1", "+1", "0x10", "1, 1", "a"] {
        assert_eq!(with(&format!("Content-Length: {bad}")).status, 400, "{bad}");
    }
}

#[test]
fn the_versions_of_http_are_told_apart() {
    assert_eq!(answer("GET / HTTP/1.0\r\n\r\n").status, 200);
    assert_eq!(answer("PRI * HTTP/2.0\r\n\r\n").status, 505);
    assert_eq!(answer("GET / HTTP/3.0\r\n\r\n").status, 505);
    assert_eq!(answer("GET /\r\n\r\n").status, 400);
    assert_eq!(
        answer("GET / HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n").status,
        400
    );
}

#[test]
fn a_host_is_there_once() {
    assert_eq!(answer("GET / HTTP/1.1\r\n\r\n").status, 400);
    assert_eq!(
        answer("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n").status,
        400
    );
    assert_eq!(
        answer("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n").status,
        400
    );
}

#[test]
fn a_page_of_another_host_reads_nothing_at_a_loopback_address() {
    let local = [
        "localhost",
        "LOCALHOST:9464",
        "127.0.0.1",
        "127.0.0.1:9464",
        "192.168.1.7",
        "[::1]",
        "[::1]:9464",
        "board:80",
        "a.localhost",
        "",
    ];
    for host in local {
        assert_eq!(from_host(host), 200, "{host}");
    }
    let strange = [
        "evil.example",
        "evil.example:9464",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil.",
        "[::1",
        "[evil.example]",
        "a@localhost.evil",
        ".localhost.",
        "1.2.3",
        "b\u{e4}d",
        "<script>",
    ];
    for host in strange {
        let answer = answer(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(answer.status, 421, "{host}");
        assert!(!answer.text().contains(host));
    }
    let of_target = answer("GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(of_target.status, 421);
    let elsewhere = answers(false).to(b"GET / HTTP/1.1\r\nHost: board.example\r\n\r\n");
    assert_eq!(Answer::read(&elsewhere, false).status, 200);
}

#[test]
fn many_headers_are_refused() {
    let with = |count: usize| {
        let headers: String = (1..count).map(|it| format!("H{it}: x\r\n")).collect();
        answer(&format!(
            "GET / HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"
        ))
        .status
    };
    assert_eq!(with(32), 200);
    assert_eq!(with(33), 431);
}

#[test]
fn a_panic_is_an_answer_and_the_next_request_has_its_own() {
    let mut answers = Answers {
        handler: Box::new(|it: &Request<'_>| match &*it.path {
            "/panics" => panic!("on purpose"),
            "/throws" => std::panic::panic_any(5),
            _ => Response::text(200, ""),
        }),
        local_names_only: false,
    };
    for (path, status) in [("panics", 500), ("", 200), ("throws", 500), ("", 200)] {
        let bytes = answers.to(format!("GET /{path} HTTP/1.0\r\n\r\n").as_bytes());
        assert_eq!(Answer::read(&bytes, false).status, status);
    }
}

#[test]
fn empty_lines_before_a_request_are_left_out_and_count() {
    let request = "\r\n\n\r\nGET /x HTTP/1.0\n\n";
    for cuts in [vec![], (0..request.len()).collect()] {
        let (bytes, _) = written(request.as_bytes(), &cuts, false, usize::MAX);
        assert_eq!(Answer::read(&bytes, false).text(), "/x [] None");
    }
    let (bytes, _) = written(&[b'\n'; HEAD_LIMIT], &[], false, usize::MAX);
    assert_eq!(Answer::read(&bytes, false).status, 431);
}

/// Whatever strangers send, with what leads deep into the parser among it.
fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let words: &[&[u8]] = &[
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"/",
        b"/healthz?verbose",
        b"%41",
        b"%",
        b"http://a/",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\n",
        b"Host: localhost\r\n",
        b"Host: evil.example\r\n",
        b"Content-Length: 5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"A: b\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b":",
        b" ",
        b"\x16\x03\x01",
        b"\0",
        b"\xff",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ];
    let word = any::<Index>().prop_map(|it| it.get(words).to_vec());
    let noise = vec(any::<u8>(), 0..20);
    let long = (any::<u8>(), 0..2 * HEAD_LIMIT).prop_map(|(byte, length)| vec![byte; length]);
    let piece = prop_oneof![12 => word, 3 => noise, 1 => long];
    vec(piece, 0..30).prop_map(|it| it.concat())
}

/// What a client is written that sends this cut into pieces, and then waits, or ends.
fn written(bytes: &[u8], cuts: &[usize], ends: bool, takes: usize) -> (Vec<u8>, usize) {
    let mut cuts = [cuts, &[0, bytes.len()]].concat();
    cuts.sort_unstable();
    let acts = cuts
        .windows(2)
        .map(|it| Act::Sends(bytes[it[0]..it[1]].to_owned()));
    let script = Script::new(acts, takes);
    if ends {
        script.act(Act::Ends);
    }
    let mut now = Instant::now();
    let mut client = Client::new(script.clone(), now);
    let mut buffer = vec![0; HEAD_LIMIT];
    let mut answers = answers(true);
    let mut asked = 0;
    let mut answering = |head: &[u8]| {
        asked += 1;
        answers.to(head)
    };
    // It takes one more look to see that nothing comes any more.
    while !script.is_through() || client.writes() {
        if client.advance(now, &mut buffer, &mut answering).is_err() {
            return (script.taken.take(), asked);
        }
    }
    now += REQUEST_TIME;
    while client.expire(now).is_ok() {
        while client.writes() {
            client
                .advance(now, &mut buffer, &mut answering)
                .expect("it takes all");
        }
        now += LEAVE_TIME;
    }
    (script.taken.take(), asked)
}

proptest! {
    #[test]
    fn whatever_comes_is_answered_once_at_the_most_and_alike_in_all_pieces(
        bytes in any_bytes(),
        pieces in vec(any::<Index>(), 0..40),
        ends in any::<bool>(),
        takes in prop_oneof![Just(1), 1..3000_usize],
    ) {
        let (written_at_once, asked) = written(&bytes, &[], ends, usize::MAX);
        prop_assert!(asked <= 1);
        let cuts: Vec<_> = pieces.iter().map(|it| it.index(bytes.len() + 1)).collect();
        let (written_in_pieces, asked) = written(&bytes, &cuts, ends, takes);
        prop_assert!(asked <= 1);
        let text = String::from_utf8_lossy(&written_in_pieces).into_owned();
        prop_assert_eq!(&written_at_once, &written_in_pieces, "{}", text);
        if bytes.is_empty() {
            prop_assert_eq!(text, "");
        } else {
            let is_head = written_in_pieces.ends_with(b"\r\n\r\n");
            Answer::read(&written_in_pieces, is_head);
        }
    }

    #[test]
    fn the_end_of_a_request_is_where_the_parser_sees_it(bytes in any_bytes()) {
        let mut head = super::super::head::Head::default();
        if let super::super::head::Step::Whole(head) = head.take(&bytes) {
            let mut headers = [httparse::EMPTY_HEADER; HEAD_LIMIT / 4];
            let mut request = httparse::Request::new(&mut headers);
            if let Ok(status) = request.parse(head) {
                prop_assert_eq!(status, httparse::Status::Complete(head.len()));
            }
        }
    }
}
