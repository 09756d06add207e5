//! Places that handlers of streams give back while others wait for one, and threads that take them.

use std::collections::VecDeque;

use super::decision::{Backlog, Decision, Next, Outlook, Rested, Waits, Wanted};
use super::roster::Roster;
use super::stream_threads::StreamThreads;
use crate::sync::{thread, Arc, Condvar, Instant, Mutex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Unary,
    /// As `Unary`, but its handler keeps its place until all calls have been polled.
    Long,
    /// Its handler waits for its caller, who says something once all calls have been polled, and all unary ones have run.
    Stream,
    /// As `Stream`, but its caller says something once so many calls have been polled.
    Brief(usize),
}

impl Waits for Call {
    fn connection(&self) -> u64 {
        u64::from(matches!(self, Call::Stream | Call::Brief(_)))
    }

    fn is_stream(&self) -> bool {
        matches!(self, Call::Stream | Call::Brief(_))
    }
}

const WORKERS: usize = 1;

struct Server {
    roster: Roster<Call>,
    streams: StreamThreads<()>,
    short: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    arrivals: VecDeque<Call>,
    /// How many have arrived, and how many unary ones have run.
    polled: usize,
    ran: usize,
    ended: usize,
    /// How many handlers have a place.
    placed: usize,
    all: usize,
    unary: usize,
    is_over: bool,
}

impl Server {
    fn start(calls: &[Call], stream_threads: usize, short: bool) -> Arc<Server> {
        let backlog = Backlog {
            calls: 10,
            bytes: 10,
        };
        let is_unary = |it: &&Call| matches!(it, Call::Unary | Call::Long);
        let unary = calls.iter().filter(is_unary).count();
        let server = Arc::new(Server {
            roster: Roster::new(WORKERS, backlog),
            streams: StreamThreads::new(stream_threads),
            short,
            state: Mutex::new(State {
                arrivals: calls.iter().copied().collect(),
                all: calls.len(),
                unary,
                ..State::default()
            }),
            changed: Condvar::new(),
        });
        if short {
            assert!(server.roster.keep_watch());
            let _ = server.roster.watch(Instant::now());
        }
        server.spawn(|it| it.polls());
        server.spawn(|it| match it.roster.rest() {
            Rested::Poll => it.polls(),
            Rested::Work => {
                if it.goes_on(false) {
                    it.polls();
                }
            }
            Rested::End => {}
        });
        server
    }

    fn spawn(self: &Arc<Self>, body: impl FnOnce(&Arc<Server>) + Send + 'static) {
        let server = Arc::clone(self);
        thread::spawn(move || body(&server));
    }

    /// Polls until the server ends, or the roster lets the thread end.
    fn polls(self: &Arc<Self>) {
        while let Some(call) = self.next() {
            let outlook = Outlook {
                short: self.short,
                pollers: 1,
                bytes: 0,
                is_step: false,
            };
            let goes_on = match self.roster.arrived(call, outlook, Instant::now()) {
                Decision::Run(call) | Decision::RunAndWatch(call) => self.works(call),
                Decision::RunAndSpawn(call) => {
                    self.spawn(|it| it.polls());
                    self.works(call)
                }
                Decision::Queued | Decision::QueuedToHire => true,
                Decision::QueuedInstead(_) | Decision::Refused(_) => panic!("there is room"),
            };
            if !goes_on {
                return;
            }
        }
    }

    fn next(&self) -> Option<Call> {
        let mut state = self.state.lock();
        loop {
            if let Some(call) = state.arrivals.pop_front() {
                state.polled += 1;
                self.changed.notify_all();
                return Some(call);
            }
            if state.is_over {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    fn works(self: &Arc<Self>, call: Call) -> bool {
        let aside = self.runs(call);
        self.goes_on(aside)
    }

    fn goes_on(self: &Arc<Self>, mut aside: bool) -> bool {
        loop {
            let next = match aside {
                true => self.roster.finished_aside(1),
                false => self.roster.finished(1),
            };
            match next {
                Next::Run(call) => aside = self.runs(call),
                Next::Poll => return true,
                Next::Rest | Next::RestToo => match self.roster.rest() {
                    Rested::Poll => return true,
                    Rested::Work => aside = false,
                    Rested::End => return false,
                },
            }
        }
    }

    fn place(&self, change: isize) {
        let mut state = self.state.lock();
        state.placed = state.placed.checked_add_signed(change).expect("it had a place");
        assert!(state.placed <= WORKERS, "more have a place than there are places");
    }

    /// Runs a handler. Says whether it has given its place back.
    fn runs(self: &Arc<Self>, call: Call) -> bool {
        self.place(1);
        let aside = match call {
            Call::Unary | Call::Long => {
                let mut state = self.state.lock();
                while call == Call::Long && state.polled < state.all {
                    self.changed.wait(&mut state);
                }
                state.ran += 1;
                self.changed.notify_all();
                false
            }
            Call::Stream | Call::Brief(_) => {
                let stream = self.streams.enter((), 1);
                stream.begins_to_wait();
                let step = || self.steps_aside();
                if let Some(wanted) = self.streams.step_aside(&stream, step) {
                    self.starts(wanted);
                }
                self.waits_for_its_caller(call, stream.is_aside());
                stream.has_waited();
                self.streams.leave(&stream)
            }
        };
        if !aside {
            self.place(-1);
        }
        self.state.lock().ended += 1;
        self.changed.notify_all();
        aside
    }

    fn steps_aside(&self) -> Wanted {
        self.place(-1);
        self.roster.step_aside()
    }

    fn starts(self: &Arc<Self>, wanted: Wanted) {
        if wanted.poller {
            self.spawn(|it| it.polls());
        }
        if wanted.worker {
            self.spawn(|it| {
                if it.goes_on(false) {
                    it.polls();
                }
            });
        }
    }

    fn waits_for_its_caller(&self, call: Call, aside: bool) {
        let mut state = self.state.lock();
        loop {
            let speaks = match call {
                Call::Brief(polled) => state.polled >= polled,
                // Without a thread of its own it keeps others waiting.
                _ => state.polled == state.all && (!aside || state.ran == state.unary),
            };
            if speaks {
                return;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Waits until all have ended.
    fn ends(&self) {
        let mut state = self.state.lock();
        while state.ended < state.all {
            self.changed.wait(&mut state);
        }
        state.is_over = true;
        drop(state);
        self.roster.close();
        self.changed.notify_all();
    }
}

/// Calls that need a place get one though streams wait for their callers, and no more run than there are places.
pub fn what_waits_for_a_place_gets_that_of_a_stream() {
    let calls = [Call::Stream, Call::Unary, Call::Stream, Call::Unary];
    Server::start(&calls, 10, false).ends();
}

/// The same if somebody rests when the place is given back.
pub fn who_rests_gets_the_place_of_a_stream() {
    let calls = [Call::Brief(2), Call::Brief(2), Call::Stream, Call::Unary];
    Server::start(&calls, 10, false).ends();
}

/// The end of a stream that has no place makes none.
pub fn who_has_no_place_gives_none() {
    let calls = [Call::Brief(3), Call::Long, Call::Unary, Call::Unary];
    Server::start(&calls, 10, false).ends();
}

/// A handler that runs with nobody polling has somebody poll once it waits.
pub fn who_waits_for_what_is_polled_gets_it() {
    Server::start(&[Call::Stream, Call::Unary], 10, true).ends();
}

/// A stream is moved aside by another thread while it may be ending.
pub fn who_is_moved_aside_has_not_ended() {
    let server = Server::start(&[Call::Stream, Call::Unary], 1, false);
    // For a moment there is no room.
    server.streams.note_thread(false);
    server.spawn(|it| {
        it.streams.note_thread(true);
        let moved = it.streams.move_aside(|| it.steps_aside(), || true);
        moved.into_iter().for_each(|wanted| it.starts(wanted));
    });
    server.ends();
}
