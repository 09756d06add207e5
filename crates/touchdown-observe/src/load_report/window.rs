//! Averages over the last one to two seconds, of what is looked at now and then.

use super::work::Time;

/// How long an average goes back at the least, in µs. Where calls end all the time, it goes back no further than twice
/// that.
pub(super) const WINDOW: u64 = 1_000_000;

/// What is seen at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Point {
    /// When, in µs.
    pub(super) at: u64,
    /// For how long handlers have run.
    pub(super) work: Time,
    /// How much more there is at this moment: calls that wait, and workers that are busy with something else.
    pub(super) waiting: usize,
    /// How many calls have ended.
    pub(super) calls: u64,
    /// How many of them were the server's fault.
    pub(super) faults: u64,
}

/// How much there is in a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rates {
    pub(super) calls: f64,
    pub(super) faults: f64,
    /// How many workers all that is done, and all that waits, would keep busy.
    pub(super) load: f64,
}

/// What was seen before.
#[derive(Debug, Default)]
pub(super) struct Window {
    last: Point,
    load: u64,
    newer: Mark,
    older: Mark,
}

/// Sums up to one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    at: u64,
    calls: u64,
    faults: u64,
    /// In µs of one worker.
    load: u64,
}

impl Window {
    /// The averages up to now, which is one window after the beginning at the least, and not before what was seen last.
    ///
    /// If nothing was seen for long, they are of all that time: what calls have cost is to be divided by their number, and
    /// nobody knows when in that time they were.
    pub(super) fn move_to(&mut self, now: Point) -> Rates {
        let last = std::mem::replace(&mut self.last, now);
        // What waits now is taken to have waited since the last look, but not for ever.
        let waited = (now.at - last.at).min(WINDOW);
        self.load += now.work.since(last.work) + now.waiting as u64 * waited;
        let mark = Mark {
            at: now.at,
            calls: now.calls,
            faults: now.faults,
            load: self.load,
        };
        if now.at - self.newer.at >= WINDOW {
            self.older = std::mem::replace(&mut self.newer, mark);
        }
        let time = (now.at - self.older.at) as f64;
        let per_second = |count: u64| count as f64 * 1e6 / time;
        Rates {
            calls: per_second(mark.calls - self.older.calls),
            faults: per_second(mark.faults - self.older.faults),
            load: (mark.load - self.older.load) as f64 / time,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::work::Work;
    use super::*;

    /// A server with handlers that take so long, one after the other, on so many workers. It is looked at when one ends,
    /// but no more often than ten times a second.
    struct Server {
        work: Work,
        window: Window,
        now: u64,
        calls: u64,
        looked: u64,
    }

    impl Server {
        fn new() -> Server {
            Server {
                work: Work::default(),
                window: Window::default(),
                now: WINDOW,
                calls: 0,
                looked: 0,
            }
        }

        /// Nothing for so long, and then as many calls at the same time, which take so long.
        fn run(&mut self, idle: u64, calls: u64, length: u64, waiting: usize) -> Option<Rates> {
            self.now += idle;
            (0..calls).for_each(|_| self.work.begin(self.now));
            self.now += length;
            (0..calls).for_each(|_| self.work.end(self.now));
            self.calls += calls;
            (self.now - self.looked >= WINDOW / 10).then(|| self.look(waiting))
        }

        fn look(&mut self, waiting: usize) -> Rates {
            self.looked = self.now;
            self.window.move_to(Point {
                at: self.now,
                work: self.work.read(self.now).1,
                waiting,
                calls: self.calls,
                faults: self.calls / 2,
            })
        }

        /// Goes on like that for three seconds.
        fn go_on(&mut self, idle: u64, calls: u64, length: u64, waiting: usize) -> Rates {
            let end = self.now + 3 * WINDOW;
            let mut last = None;
            while self.now < end {
                last = self.run(idle, calls, length, waiting).or(last);
            }
            last.unwrap()
        }
    }

    fn is_near(value: f64, expected: f64) -> bool {
        (value - expected).abs() <= expected * 0.02 + 1e-9
    }

    #[test]
    fn the_load_is_the_part_of_the_time_in_which_handlers_run() {
        let rates = Server::new().go_on(9_000, 4, 1_000, 0);
        assert!(is_near(rates.calls, 400.0), "{rates:?}");
        assert!(is_near(rates.faults, 200.0), "{rates:?}");
        assert!(is_near(rates.load, 0.4), "{rates:?}");
    }

    #[test]
    fn what_waits_is_added() {
        let rates = Server::new().go_on(0, 2, 1_000, 7);
        assert!(is_near(rates.load, 9.0), "{rates:?}");
    }

    #[test]
    fn a_handler_that_does_not_return_is_load_all_the_time() {
        let mut server = Server::new();
        server.work.begin(server.now);
        let rates = server.go_on(99_000, 1, 1_000, 0);
        assert!(is_near(rates.load, 1.01), "{rates:?}");
        // An hour later, too.
        server.now += 3600 * WINDOW;
        assert!(is_near(server.look(0).load, 1.0));
    }

    #[test]
    fn what_was_is_forgotten_after_two_seconds() {
        let mut server = Server::new();
        server.go_on(0, 4, 1_000, 100);
        let rates = server.go_on(9_000, 1, 1_000, 0);
        assert!(is_near(rates.load, 0.1), "{rates:?}");
        assert!(is_near(rates.calls, 100.0), "{rates:?}");
        // After an hour of nothing, it takes as long.
        server.run(3600 * WINDOW, 1, 1_000, 0);
        let rates = server.go_on(9_000, 4, 1_000, 0);
        assert!(is_near(rates.load, 0.4), "{rates:?}");
    }

    #[test]
    fn an_idle_server_that_is_called_is_idle() {
        let mut server = Server::new();
        server.now += 3600 * WINDOW;
        let rates = server.run(0, 1, 1_000, 0).unwrap();
        assert!(rates.load < 1e-6 && rates.calls > 0.0, "{rates:?}");
    }

    proptest! {
        /// How often it is called does not change what a call costs: clients reckon with that.
        #[test]
        fn load_by_calls_is_what_a_call_costs(
            idle in 0..20 * WINDOW,
            calls in 1..9_u64,
            length in 1_000..50_000_u64,
        ) {
            let rates = Server::new().go_on(idle, calls, length, 0);
            let cost = rates.load / rates.calls * 1e6;
            prop_assert!(is_near(cost, length as f64), "{} {:?}", cost, rates);
        }
    }
}
