use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits {
    message: 4 << 20,
    arriving: 8 << 20,
    metadata: 16 << 10,
};

const fn frame(kind: u8, flags: u8, stream: u32, length: u32) -> Frame {
    Frame {
        length,
        kind,
        flags,
        stream,
        is_open: true,
    }
}

/// Of a client that has said how it speaks.
fn opened() -> Guard {
    let mut guard = Guard::new(LIMITS);
    assert_eq!(guard.begins(frame(SETTINGS, 0, 0, 18), 0), Verdict::Open);
    assert_eq!(
        guard.begins(frame(SETTINGS, ACK, 0, 0), 0),
        Verdict::Swallow
    );
    guard
}

/// And has begun a call.
fn calling(stream: u32) -> Guard {
    let mut guard = opened();
    let headers = frame(HEADERS, END_HEADERS, stream, 100);
    assert_eq!(guard.begins(headers, 0), Verdict::Pass);
    guard
}

/// DATA with these bytes.
fn data(guard: &mut Guard, stream: u32, flags: u8, bytes: &mut [u8], now: u64) -> Verdict {
    match guard.begins(frame(DATA, flags, stream, bytes.len() as u32), now) {
        Verdict::Look => guard.goes_on(bytes),
        other => other,
    }
}

/// How many of these pass at once.
fn allowed(mut guard: Guard, next: Frame) -> usize {
    let pass = |it: &Verdict| matches!(it, Verdict::Pass | Verdict::Look);
    let verdicts = (0..1_000_000).map(|_| guard.begins(next, 0));
    verdicts.take_while(pass).count()
}

#[test]
fn calls_above_those_that_may_be_open_count_as_calls_that_are_reset() {
    let mut guard = calling(1);
    let one_too_many = |stream| Frame {
        is_open: false,
        ..frame(HEADERS, END_HEADERS, stream, 100)
    };
    let most = RESETS.0;
    for it in 1..=most {
        assert_eq!(guard.begins(one_too_many(2 * it + 1), 0), Verdict::Pass);
    }
    let verdict = guard.begins(one_too_many(2 * most + 3), 0);
    assert_eq!(verdict, Verdict::SendAway);
    // What comes of these calls is nobody's.
    let late = Frame {
        is_open: false,
        ..frame(DATA, END_STREAM, 3, 100)
    };
    assert_eq!(guard.begins(late, 0), Verdict::Pass);
    // The call that has begun goes on.
    let mut message = [0, 0, 0, 0, 1, 7];
    assert_eq!(
        data(&mut guard, 1, END_STREAM, &mut message, 0),
        Verdict::Pass
    );
}

#[test]
fn only_the_first_acknowledgement_is_swallowed() {
    let mut guard = opened();
    let ack = frame(SETTINGS, ACK, 0, 0);
    assert_eq!(guard.begins(ack, 0), Verdict::Pass);
    assert_eq!(guard.begins(frame(SETTINGS, 0, 0, 6), 0), Verdict::Pass);
}

#[test]
fn settings_come_first() {
    for first in [
        frame(SETTINGS, ACK, 0, 0),
        frame(HEADERS, END_HEADERS, 1, 10),
    ] {
        assert_eq!(Guard::new(LIMITS).begins(first, 0), Verdict::Cut);
    }
}

#[test]
fn frames_that_nobody_needs_are_counted() {
    assert_eq!(allowed(opened(), frame(PRIORITY, 0, 1, 5)), 10_000);
    assert_eq!(allowed(opened(), frame(0xfa, 0, 0, 16_384)), 588);
    assert_eq!(allowed(opened(), frame(SETTINGS, 0, 0, 96)), 3_333);
    assert_eq!(allowed(calling(1), frame(DATA, 0, 1, 0)), 10_000);
    assert_eq!(allowed(opened(), frame(PING, ACK, 0, 8)), 10_000);
    assert_eq!(allowed(opened(), frame(GOAWAY, 0, 0, 8)), 102);
    let late = Frame {
        is_open: false,
        ..frame(DATA, 0, 1, 1)
    };
    assert_eq!(allowed(calling(1), late), 64 * 10_001 - 1);
    // Two are allowed by the call.
    assert_eq!(allowed(calling(1), frame(WINDOW_UPDATE, 0, 1, 4)), 10_002);
}

/// C-core, of a call whose deadline passes before its HEADERS are written.
#[test]
fn a_call_may_be_reset_before_it_is_begun() {
    let mut guard = opened();
    let reset = |stream| frame(RST_STREAM, 0, stream, 4);
    let headers = |stream| frame(HEADERS, END_HEADERS, stream, 100);
    for next in [reset(1), headers(3), reset(7), headers(5), headers(9)] {
        assert_eq!(guard.begins(next, 0), Verdict::Pass);
    }
    // They are counted as all others are.
    assert_eq!(allowed(opened(), reset(1)), 1_000);
    assert_eq!(guard.begins(reset(8), 0), Verdict::Cut);
}

/// The keepalive of a client, at every ten seconds on an idle connection, as the network hands it over.
#[test]
fn a_keepalive_is_served_for_as_long_as_it_likes() {
    let mut guard = opened();
    let ping = frame(PING, 0, 0, 8);
    for number in 1..10_000 {
        let jitter = [0, 9_990, 10, 0, 5_000][number as usize % 5];
        let verdict = guard.begins(ping, number * 10_000 + jitter);
        assert_eq!(verdict, Verdict::Pass, "{number}");
    }
}

#[test]
fn who_pings_every_second_is_told() {
    let mut guard = opened();
    let ping = frame(PING, 0, 0, 8);
    let mut verdicts = (0..100).map(|it| guard.begins(ping, it * 1_000));
    let served = verdicts.by_ref().take_while(|it| *it == Verdict::Pass);
    assert_eq!(served.count(), 12);
    assert_eq!(guard.fault.text, c"too_many_pings");
}

/// A client that receives 16 GiB, with a ping for each DATA frame, as grpc-go has it, and two updates of windows.
#[test]
fn who_receives_much_may_answer_much() {
    let mut guard = calling(1);
    for _ in 0..1_000_000 {
        assert_eq!(guard.written(1, 16_384, 0, 0), Verdict::Pass);
        assert_eq!(guard.begins(frame(PING, 0, 0, 8), 0), Verdict::Pass);
        for stream in [0, 1] {
            let update = frame(WINDOW_UPDATE, 0, stream, 4);
            assert_eq!(guard.begins(update, 0), Verdict::Look);
            assert_eq!(guard.goes_on(&mut 16_384u32.to_be_bytes()), Verdict::Pass);
        }
    }
    assert_eq!(guard.window, WINDOW);
}

/// 1,000 streams at once, each with small messages, and with prefixes in frames of their own.
#[test]
fn small_messages_cost_nothing() {
    let mut guard = opened();
    for stream in (1..2_000).step_by(2) {
        let headers = frame(HEADERS, END_HEADERS, stream, 50);
        assert_eq!(guard.begins(headers, 0), Verdict::Pass);
        let update = frame(WINDOW_UPDATE, 0, stream, 4);
        assert_eq!(guard.begins(update, 0), Verdict::Look);
    }
    for _ in 0..100 {
        for stream in (1..2_000).step_by(2) {
            let mut whole = *b"\0\0\0\0\x03abc";
            assert_eq!(data(&mut guard, stream, 0, &mut whole, 0), Verdict::Pass);
            let mut prefix = *b"\0\0\0\0\x03";
            assert_eq!(data(&mut guard, stream, 0, &mut prefix, 0), Verdict::Pass);
            let mut body = *b"abc";
            assert_eq!(data(&mut guard, stream, 0, &mut body, 0), Verdict::Pass);
        }
    }
    assert!(guard.glitches.take(10_000, 0), "nothing was counted");
}

#[test]
fn a_message_in_tiny_pieces_is_counted() {
    let mut guard = calling(1);
    let mut prefix = *b"\0\0\x10\0\0";
    assert_eq!(data(&mut guard, 1, 0, &mut prefix, 0), Verdict::Pass);
    let mut pieces = (0..20_000).map(|_| data(&mut guard, 1, 0, &mut [7; 100], 0));
    let passed = pieces
        .by_ref()
        .take_while(|it| *it == Verdict::Pass)
        .count();
    assert_eq!(passed, 10_000);
}

#[test]
fn resets_send_away_and_then_cut() {
    let mut guard = calling(1);
    let reset = frame(RST_STREAM, 0, 1, 4);
    let verdicts: Vec<_> = (0..12_000).map(|_| guard.begins(reset, 0)).collect();
    let first = verdicts.iter().position(|it| *it != Verdict::Pass);
    assert_eq!(first, Some(1_000));
    assert_eq!(verdicts[1_000], Verdict::SendAway);
    assert_eq!(verdicts[11_001], Verdict::Cut);
    assert!(verdicts[1_001..11_001]
        .iter()
        .all(|it| *it == Verdict::Pass));
    // As many a second as a client of gRPC may need.
    let mut guard = calling(1);
    assert!((0..100_000).all(|it| guard.begins(reset, it * 2) == Verdict::Pass));
}

#[test]
fn calls_behind_goaway_count_as_resets() {
    let mut guard = calling(1);
    assert_eq!(guard.written(0, 0, 1_001, 0), Verdict::SendAway);
    let mut verdicts = (2..).map(|it| guard.begins(frame(HEADERS, END_HEADERS, 2 * it + 1, 9), 0));
    assert_eq!(verdicts.position(|it| it == Verdict::Cut), Some(10_000));
}

#[test]
fn a_connection_ends_before_its_streams_do() {
    let mut guard = opened();
    let before = frame(HEADERS, END_HEADERS, LAST_STREAM - 1, 9);
    assert_eq!(guard.begins(before, 0), Verdict::Pass);
    let after = frame(HEADERS, END_HEADERS, LAST_STREAM + 1, 9);
    assert_eq!(guard.begins(after, 0), Verdict::SendAway);
    assert_eq!(guard.fault.code, NO_ERROR);
}

#[test]
fn a_block_of_headers_has_an_end() {
    let begun = || {
        let mut guard = opened();
        assert_eq!(guard.begins(frame(HEADERS, 0, 1, 16_384), 0), Verdict::Pass);
        guard
    };
    assert_eq!(allowed(begun(), frame(CONTINUATION, 0, 1, 0)), 12);
    assert_eq!(allowed(begun(), frame(CONTINUATION, 0, 1, 16_384)), 3);
    let mut guard = begun();
    let end = frame(CONTINUATION, END_HEADERS, 1, 16_384);
    assert_eq!(guard.begins(end, 0), Verdict::Pass);
    assert_eq!(guard.begins(frame(PING, 0, 0, 8), 0), Verdict::Pass);
}

#[test]
fn a_message_that_is_too_long_is_not_taken() {
    let mut guard = calling(1);
    let mut start = *b"\0\x10\0\0\0abc one and twenty bytes";
    assert_eq!(data(&mut guard, 1, 0, &mut start, 0), Verdict::Pass);
    assert_eq!(start[..9], *b"\0\0\0\0\x18abc ");
    assert_eq!(start[9..], stand_in::end(0x1000_0000));
    let more = frame(DATA, 0, 1, 16_384);
    assert_eq!(guard.begins(more, 0), Verdict::Divert);
    guard.ended(1);
    // The stream is over, and C-core knows.
    let more = Frame {
        is_open: false,
        ..more
    };
    assert_eq!(guard.begins(more, 0), Verdict::Pass);
}

#[test]
fn messages_that_are_still_arriving_have_so_much_room_together() {
    let mut guard = opened();
    // 1 MiB each, of which 40 bytes have come.
    let mut arrive = |stream, bytes: usize| {
        let headers = frame(HEADERS, END_HEADERS, stream, 100);
        assert_eq!(guard.begins(headers, 0), Verdict::Pass);
        let mut start = [&[0, 0, 0x10, 0, 0][..], &[7; 40][..bytes]].concat();
        let verdict = data(&mut guard, stream, 0, &mut start, 0);
        (verdict, start)
    };
    for stream in (1..17).step_by(2) {
        assert_eq!(arrive(stream, 40).1[..5], [0, 0, 0x10, 0, 0]);
    }
    assert_eq!(arrive(17, 40).1[25..], stand_in::end(0));
    // With their lengths alone they are waited for, up to twice as many.
    for stream in (19..35).step_by(2) {
        assert_eq!(arrive(stream, 0).0, Verdict::Pass);
    }
    assert_eq!(arrive(35, 0).0, Verdict::Cut);
}

proptest! {
    /// Whatever comes, in whatever pieces, at whatever time: there is a verdict, and no panic.
    #[test]
    fn anything_is_judged(
        frames in prop::collection::vec(
            (0u8..12, any::<u8>(), 0u32..9, prop_oneof![0u32..40, 0u32..1 << 24], any::<bool>(), any::<u64>()),
            0..60,
        ),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut guard = opened();
        for (kind, flags, stream, length, is_open, now) in frames {
            let frame = Frame { length, kind, flags, stream, is_open };
            match guard.begins(frame, now) {
                Verdict::Cut => break,
                Verdict::Look => {
                    let mut left = length as usize;
                    while left > 0 {
                        let mut piece = vec![7; left.min(bytes.len().max(1))];
                        piece.iter_mut().zip(&bytes).for_each(|(it, byte)| *it = *byte);
                        left -= piece.len();
                        if length > 10_000 {
                            left = 0;
                        }
                        if guard.goes_on(&mut piece) == Verdict::Cut {
                            return Ok(());
                        }
                    }
                }
                _ => {}
            }
            guard.written(u32::from(flags), now, u32::from(is_open), now);
            guard.ended(stream);
        }
    }

    /// Calls of any number and size of messages, cut into frames as clients do, are never sent away.
    #[test]
    fn ordinary_calls_pass(
        calls in prop::collection::vec((prop::collection::vec(0usize..40_000, 0..4), any::<bool>()), 1..60),
    ) {
        let mut guard = opened();
        for (number, (messages, is_reset)) in (0u32..).zip(calls) {
            let stream = 2 * number + 1;
            let now = u64::from(number) / 10;
            prop_assert_eq!(guard.begins(frame(HEADERS, END_HEADERS, stream, 80), now), Verdict::Pass);
            for length in messages {
                let mut bytes = vec![0];
                bytes.extend((length as u32).to_be_bytes());
                bytes.resize(length + 5, 9);
                for piece in bytes.chunks_mut(16_384) {
                    prop_assert_eq!(data(&mut guard, stream, 0, piece, now), Verdict::Pass);
                }
            }
            let end = if is_reset {
                guard.begins(frame(RST_STREAM, 0, stream, 4), now)
            } else {
                guard.begins(frame(DATA, END_STREAM, stream, 0), now)
            };
            prop_assert_eq!(end, Verdict::Pass);
            prop_assert_eq!(guard.written(3, 100, 0, now), Verdict::Pass);
            guard.ended(stream);
        }
        prop_assert!(guard.glitches.take(10_000, 0), "something was counted");
    }
}
