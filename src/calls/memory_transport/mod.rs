//! A transport in memory: no sockets, no threads, no HTTP/2. Tests are its clients, and see what "the wire" got.
//!
//! A [`Client`] is one connection, and a [`Line`] one call on it, as its caller has it. Nothing happens by itself: the
//! caller says when a message is sent, whether what it is sent is taken, and when it leaves.

mod line;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

pub(super) use self::line::{Line, Sent};

use self::line::{message_of, MemoryWire};
use super::call::ground::Ground;
use super::call::Call;
use super::connections::{Guest, Times};
use super::message::Message;
use super::method::Method;
use super::shared::Shared;
use super::transport::{Arrival, Check, Event, Finished, Link, Newcomer, Span, Transport, View};
use crate::sockets::accepted::Accepted;
use crate::sockets::peer::PeerInfo;

/// How long a test waits for what has to happen.
pub(super) const LONG: Duration = Duration::from_secs(20);

#[derive(Clone)]
pub(super) struct MemoryTransport(Arc<Inner>);

struct Inner {
    /// The paths, and whether each takes a stream of requests.
    methods: Vec<(String, bool)>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    events: VecDeque<Queued>,
    /// Arrivals that somebody is at work on; and one, as long as more may come.
    arrivals: usize,
    /// Operations whose end is to be told by an event, and is not there yet.
    outstanding: usize,
    is_shut_down: bool,
    is_at_end: bool,
    lines: Vec<Arc<Line>>,
    links: Vec<Arc<MemoryLink>>,
    goaways: usize,
}

enum Queued {
    Arrival {
        line: Arc<Line>,
        method: Option<u32>,
        unknown: Option<String>,
        message: Option<Message>,
    },
    /// Tells a call.
    Tell(Box<dyn FnOnce() + Send>),
    Received(Arc<Call>, Option<Message>, bool),
    Step(Arc<Call>),
    Closed(Guest),
    NoArrival,
    Stopped,
    Check(Check),
    Renewal,
}

impl Inner {
    fn push(&self, event: Queued) {
        self.state.lock().events.push_back(event);
        self.changed.notify_one();
    }

    /// An operation has ended that was outstanding: this tells of it.
    fn push_end(&self, tell: impl FnOnce() + Send + 'static) {
        self.push_last(Queued::Tell(Box::new(tell)));
    }

    /// The same.
    fn push_last(&self, event: Queued) {
        let mut state = self.state.lock();
        state.outstanding -= 1;
        state.events.push_back(event);
        self.changed.notify_one();
    }

    fn begin(&self) {
        self.state.lock().outstanding += 1;
    }

    /// What comes next, if there is something, as far as that needs the lock.
    fn take(&self, state: &mut State) -> Option<Option<Queued>> {
        if let Some(event) = state.events.pop_front() {
            if matches!(event, Queued::NoArrival) {
                state.arrivals -= 1;
            }
            return Some(Some(event));
        }
        let is_over = state.is_at_end && state.outstanding == 0;
        is_over.then(|| {
            // For the others that wait.
            self.changed.notify_all();
            None
        })
    }

    fn event(&self, taken: Option<Queued>, ground: &Arc<Ground>) -> Event {
        let Some(queued) = taken else {
            return Event::End;
        };
        match queued {
            Queued::Arrival {
                line,
                method,
                unknown,
                message,
            } => {
                let wire = MemoryWire(line);
                let path = unknown.as_deref();
                Event::Arrival(Arrival {
                    call: Call::new(ground, method, path, message.as_ref(), wire),
                    message,
                    unknown,
                    fault: None,
                })
            }
            Queued::Tell(tell) => {
                tell();
                Event::Told
            }
            Queued::Received(call, message, failed) => {
                match call.received_in_turn(message, failed) {
                    true => Event::Step(call),
                    false => Event::Told,
                }
            }
            Queued::Step(call) => Event::Step(call),
            Queued::Closed(guest) => {
                guest.closed(0);
                self.stop_if_alone();
                Event::Told
            }
            Queued::NoArrival => Event::NoArrival,
            Queued::Stopped => Event::Stopped,
            Queued::Check(check) => Event::Check(check),
            Queued::Renewal => Event::Renewal,
        }
    }

    /// The transport is shut down once the last connection is gone.
    fn stop_if_alone(&self) {
        let mut state = self.state.lock();
        state.links.retain(|it| it.guest.lock().is_some());
        if state.is_shut_down && state.links.is_empty() {
            state.events.push_back(Queued::Stopped);
            self.changed.notify_one();
        }
    }
}

impl MemoryTransport {
    pub(super) fn new(methods: &[Method]) -> MemoryTransport {
        let methods = methods.iter();
        MemoryTransport(Arc::new(Inner {
            methods: methods
                .map(|it| (it.path.clone(), it.streaming_request))
                .collect(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// How often GOAWAY was sent.
    pub(super) fn goaways(&self) -> usize {
        self.0.state.lock().goaways
    }

    /// A connection of a new client, accepted by this server.
    pub(super) fn connect(&self, shared: &Shared) -> Client {
        let accepted = Accepted {
            // No socket is needed, but a descriptor.
            socket: OwnedFd::from(std::fs::File::open("/dev/null").unwrap()),
            peer: Some(([192, 0, 2, 1], 4711).into()),
            info: PeerInfo::default(),
            unanswered: None,
            is_public: false,
            #[cfg(feature = "tls")]
            encryption: None,
        };
        let connections = &shared.ground.connections;
        let times = Times {
            now: Duration::ZERO,
            silent_until: Duration::MAX,
            unanswered: LONG,
            lasting: shared.limits.lasting(&accepted),
        };
        let newcomer = connections.add(accepted, &times);
        shared.transport.add_connection(newcomer);
        let link = self.0.state.lock().links.last().cloned();
        let link = link.expect("it was added just now");
        link.with_guest(Guest::ready);
        Client {
            transport: self.clone(),
            link,
            takes: AtomicBool::new(true),
        }
    }
}

impl Transport for MemoryTransport {
    fn start(&self) {
        self.0.state.lock().arrivals = 1;
    }

    fn next(&self, ground: &Arc<Ground>) -> Event {
        let mut state = self.0.state.lock();
        let taken = loop {
            match self.0.take(&mut state) {
                Some(taken) => break taken,
                None => self.0.changed.wait(&mut state),
            }
        };
        state.arrivals += usize::from(matches!(taken, Some(Queued::Arrival { .. })));
        drop(state);
        self.0.event(taken, ground)
    }

    fn try_next(&self, ground: &Arc<Ground>) -> Option<Event> {
        let mut state = self.0.state.lock();
        let taken = self.0.take(&mut state)?;
        state.arrivals += usize::from(matches!(taken, Some(Queued::Arrival { .. })));
        drop(state);
        Some(self.0.event(taken, ground))
    }

    fn arrival_is_over(&self) {
        self.0.state.lock().arrivals -= 1;
    }

    fn expects_arrivals(&self) -> bool {
        self.0.state.lock().arrivals > 0
    }

    fn post(&self, check: Check) {
        let mut state = self.0.state.lock();
        if !state.is_at_end {
            state.events.push_back(Queued::Check(check));
            self.0.changed.notify_one();
        }
    }

    fn renew(&self) {
        self.0.push(Queued::Renewal);
    }

    fn renew_threads(&self) {}

    fn add_connection(&self, newcomer: Newcomer) {
        let link = Arc::new(MemoryLink {
            inner: Arc::clone(&self.0),
            number: newcomer.guest.number(),
            peer: newcomer.peer,
            guest: Mutex::new(None),
            view: Mutex::default(),
        });
        newcomer.guest.opened(Arc::clone(&link) as Arc<dyn Link>);
        *link.guest.lock() = Some(newcomer.guest);
        self.0.state.lock().links.push(link);
    }

    fn send_goaways(&self) {
        self.0.state.lock().goaways += 1;
    }

    fn open_calls(&self) -> usize {
        0
    }

    // Nothing waits here.
    fn cork(&self) {}

    fn uncork(&self) {}

    fn uncork_old(&self) {}

    fn shut_down(&self) {
        self.0.state.lock().is_shut_down = true;
        self.0.push(Queued::NoArrival);
        self.0.stop_if_alone();
    }

    fn cancel_all_calls(&self) {
        let lines = std::mem::take(&mut self.0.state.lock().lines);
        lines.iter().for_each(|it| it.leave());
    }

    fn end(&self) {
        self.0.state.lock().is_at_end = true;
        self.0.changed.notify_all();
    }
}

/// A connection.
pub(super) struct MemoryLink {
    inner: Arc<Inner>,
    number: u64,
    peer: String,
    /// Until it is closed.
    guest: Mutex<Option<Guest>>,
    view: Mutex<View>,
}

impl MemoryLink {
    fn with_guest(&self, tell: impl FnOnce(&Guest)) {
        if let Some(guest) = &*self.guest.lock() {
            tell(guest);
        }
    }
}

impl Link for MemoryLink {
    fn look(&self) -> View {
        let view = *self.view.lock();
        View {
            gone: self.guest.lock().is_none(),
            ..view
        }
    }

    fn send_away(&self) -> bool {
        true
    }

    fn blame(&self) {}

    fn pass_span(&self, _: Span) -> usize {
        0
    }

    fn rest(&self, _: u32) -> bool {
        true
    }

    fn finish(&self) -> Finished {
        Finished::Told
    }

    fn shut_down(&self) {
        if let Some(guest) = self.guest.lock().take() {
            // Its callers see it.
            let lines = self.inner.state.lock().lines.clone();
            let of_this = lines.iter().filter(|it| it.is_on(self.number));
            of_this.for_each(|it| it.leave());
            self.inner.push(Queued::Closed(guest));
        }
    }

    fn round_trip(&self) -> Duration {
        Duration::ZERO
    }
}

/// A connection, as its client has it.
pub(super) struct Client {
    transport: MemoryTransport,
    link: Arc<MemoryLink>,
    takes: AtomicBool,
}

impl Client {
    /// What there is to be seen of the connection from now on.
    pub(super) fn shows(&self, view: View) {
        *self.link.view.lock() = view;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.link.guest.lock().is_none()
    }

    /// Sets whether the network takes what is sent on the calls that are begun from now on.
    pub(super) fn take(&self, takes: bool) {
        self.takes.store(takes, Ordering::SeqCst);
    }

    /// The client closes it.
    pub(super) fn close(&self) {
        self.link.shut_down();
    }

    /// Begins a call of `path` with these messages, and says that there are no more if its method takes one only. Any
    /// path will do.
    pub(super) fn call(&self, path: &str, messages: &[&[u8]]) -> Arc<Line> {
        self.call_with(path, messages, &[], None)
    }

    /// As `call`, with metadata, and so much time until its deadline.
    pub(super) fn call_with(
        &self,
        path: &str,
        messages: &[&[u8]],
        metadata: &[(&str, &[u8])],
        time: Option<Duration>,
    ) -> Arc<Line> {
        let inner = &self.transport.0;
        let method = inner.methods.iter().position(|(it, _)| it == path);
        let takes_stream = method.is_some_and(|it| inner.methods[it].1);
        let mut requests: VecDeque<_> = messages.iter().map(|it| message_of(it)).collect();
        let message = match takes_stream {
            true => None,
            false => requests.pop_front(),
        };
        let takes = self.takes.load(Ordering::SeqCst);
        let line = Line::new(&self.link, metadata, time, requests, takes);
        inner.state.lock().lines.push(Arc::clone(&line));
        inner.push(Queued::Arrival {
            line: Arc::clone(&line),
            method: method.map(|it| it as u32),
            unknown: method.is_none().then(|| path.to_owned()),
            message,
        });
        line
    }
}
