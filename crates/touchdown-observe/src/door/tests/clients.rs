//! Time, room and memory, by a clock that the test sets.

use std::time::{Duration, Instant};

use super::super::table::Table;
use super::super::{
    Response, ANSWER_TIME, LEAVE_LIMIT, LEAVE_TIME, MOST_CLIENTS, MOST_PENDING, REQUEST_TIME,
    STALL_TIME,
};
use super::{Act, Script};

const REQUEST: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
const MOMENT: Duration = Duration::from_millis(1);

/// A table, and what time it is there.
struct Door {
    table: Table<Script>,
    now: Instant,
    answer: usize,
}

impl Door {
    /// Every answer has a body of so many bytes.
    fn new(answer: usize) -> Door {
        Door {
            table: Table::new(),
            now: Instant::now(),
            answer,
        }
    }

    fn admit(&mut self, script: &Script) {
        let body = self.answer;
        let mut answering = |_: &[u8]| Response::text(200, "x".repeat(body)).into_bytes(false);
        self.table.admit(script.clone(), self.now, &mut answering);
    }

    /// So much time passes, and then all are ready.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        let body = self.answer;
        let mut answering = |_: &[u8]| Response::text(200, "x".repeat(body)).into_bytes(false);
        let all = vec![true; self.len()];
        self.table.advance(&all, self.now, &mut answering);
    }

    fn len(&self) -> usize {
        self.table.sockets().count()
    }
}

fn asks(takes: usize) -> Script {
    Script::new([Act::Sends(REQUEST.to_owned())], takes)
}

fn hesitates() -> Script {
    Script::new([Act::Sends(b"GET".to_vec())], usize::MAX)
}

#[test]
fn nobody_is_waited_for_while_nobody_is_there() {
    let mut door = Door::new(0);
    assert_eq!(door.table.deadline(), None);
    let script = asks(usize::MAX);
    door.admit(&script);
    assert!(*script.has_end.borrow(), "it is answered at once");
    assert_eq!(door.table.deadline(), Some(door.now + LEAVE_TIME));
    script.act(Act::Ends);
    door.pass(MOMENT);
    assert_eq!(door.table.deadline(), None);
}

#[test]
fn a_request_has_its_time_in_all_however_often_a_byte_comes() {
    let mut door = Door::new(0);
    let script = hesitates();
    door.admit(&script);
    let start = door.now;
    for _ in 1..REQUEST_TIME.as_secs() {
        script.act(Act::Sends(b"T".to_vec()));
        door.pass(Duration::from_secs(1));
        assert_eq!(door.table.deadline(), Some(start + REQUEST_TIME));
        assert!(script.taken.borrow().is_empty());
    }
    door.pass(Duration::from_secs(1));
    assert_eq!(script.answer().status, 408);
    door.pass(LEAVE_TIME);
    assert_eq!(door.len(), 0);
}

#[test]
fn who_says_nothing_is_told_nothing() {
    let mut door = Door::new(0);
    let script = Script::new([], usize::MAX);
    door.admit(&script);
    door.pass(REQUEST_TIME - MOMENT);
    assert_eq!(door.len(), 1);
    door.pass(MOMENT);
    assert_eq!(door.len(), 0);
    assert!(script.taken.borrow().is_empty());
}

#[test]
fn who_resets_is_gone() {
    let mut door = Door::new(0);
    let script = Script::new([Act::Resets], usize::MAX);
    door.admit(&script);
    assert_eq!(door.len(), 0);
}

#[test]
fn an_answer_that_nobody_takes_is_given_up() {
    let mut door = Door::new(1000);
    let script = asks(0);
    door.admit(&script);
    door.pass(STALL_TIME - MOMENT);
    assert_eq!(door.len(), 1);
    door.pass(MOMENT);
    assert_eq!(door.len(), 0);
}

#[test]
fn an_answer_has_its_time_in_all_however_often_a_byte_is_taken() {
    let mut door = Door::new(1000);
    let script = asks(1);
    door.admit(&script);
    let steps = ANSWER_TIME.as_secs();
    for _ in 1..steps {
        door.pass(Duration::from_secs(1));
        assert_eq!(door.len(), 1);
    }
    door.pass(Duration::from_secs(1));
    assert_eq!(door.len(), 0);
    assert_eq!(script.taken.borrow().len() as u64, steps + 1);
}

#[test]
fn who_stays_after_the_answer_is_left() {
    let mut door = Door::new(0);
    let script = asks(usize::MAX);
    door.admit(&script);
    for _ in 0..3 {
        script.act(Act::Sends(REQUEST.to_owned()));
        door.pass(MOMENT);
    }
    assert_eq!(script.answer().status, 200);
    assert_eq!(door.len(), 1);
    door.pass(LEAVE_TIME);
    assert_eq!(door.len(), 0);
}

#[test]
fn who_goes_on_sending_after_the_answer_is_left_sooner() {
    let mut door = Door::new(0);
    let script = asks(usize::MAX);
    script.act(Act::Sends(vec![0; LEAVE_LIMIT]));
    door.admit(&script);
    while !script.is_through() {
        door.pass(Duration::ZERO);
        assert_eq!(door.len(), 1);
    }
    script.act(Act::Sends(b"x".to_vec()));
    door.pass(Duration::ZERO);
    assert_eq!(door.len(), 0);
}

#[test]
fn who_has_waited_longest_for_its_own_request_makes_room() {
    let mut door = Door::new(1000);
    // They do not read.
    let answered: Vec<_> = (0..4).map(|_| asks(0)).collect();
    answered.iter().for_each(|it| door.admit(it));
    let slow: Vec<_> = (0..MOST_CLIENTS - 4).map(|_| hesitates()).collect();
    for script in &slow {
        door.now += MOMENT;
        door.admit(script);
    }
    assert_eq!(door.len(), MOST_CLIENTS);
    let good = asks(usize::MAX);
    door.admit(&good);
    assert_eq!(good.answer().status, 200);
    assert_eq!(door.len(), MOST_CLIENTS);
    let is_there = |door: &Door, script: &Script| {
        let mut all = door.table.sockets();
        all.any(|it| std::rc::Rc::ptr_eq(&it.0.taken, &script.taken))
    };
    assert!(!is_there(&door, &slow[0]));
    // Before another one goes, who has its answer does.
    door.admit(&hesitates());
    assert!(!is_there(&door, &good));
    assert!(is_there(&door, &slow[1]));
    // A flood of those who ask for nothing.
    for _ in 0..10 * MOST_CLIENTS {
        door.admit(&hesitates());
    }
    assert_eq!(door.len(), MOST_CLIENTS);
    assert!(answered.iter().all(|it| is_there(&door, it)));
}

#[test]
fn if_all_are_answered_who_has_not_read_for_longest_makes_room() {
    let mut door = Door::new(1000);
    let first = asks(0);
    door.admit(&first);
    for _ in 1..MOST_CLIENTS {
        door.now += MOMENT;
        door.admit(&asks(0));
    }
    let good = asks(usize::MAX);
    door.admit(&good);
    assert_eq!(good.answer().status, 200);
    assert_eq!(door.len(), MOST_CLIENTS);
    let mut all = door.table.sockets();
    assert!(!all.any(|it| std::rc::Rc::ptr_eq(&it.0.taken, &first.taken)));
}

#[test]
fn answers_that_nobody_reads_have_a_limit_in_all() {
    let mut door = Door::new(MOST_PENDING / 4);
    for _ in 0..MOST_CLIENTS {
        door.now += MOMENT;
        door.admit(&asks(0));
    }
    assert_eq!(door.len(), 3, "a fourth would be too much, with the heads");
    // One may be of any size, and it is the others that go.
    door.answer = 10 * MOST_PENDING;
    door.now += MOMENT;
    let large = asks(1 << 20);
    door.admit(&large);
    assert_eq!(door.len(), 1);
    while door.len() > 0 {
        door.pass(MOMENT);
        if *large.has_end.borrow() {
            large.act(Act::Ends);
        }
    }
    assert_eq!(large.answer().body.len(), 10 * MOST_PENDING);
}
