//! A transport in memory: no sockets, no threads, no HTTP/2. Tests are its clients, and see what "the wire" got.
//!
//! A [`Client`] is one connection, and a [`Line`] one call on it, as its caller has it. Nothing happens by itself: the
//! caller says when a message is sent, whether what it is sent is taken, and when it leaves.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::call::{Call, Pair};
use super::connections::Guest;
use super::ground::Ground;
use super::message::{Compression, Message};
use super::method::Method;
use super::outgoing::Outgoing;
use super::shared::Shared;
use super::transport::{
    Arrival, Check, Event, Finish, Finished, Link, Newcomer, Told, Transport, View, Wire,
};
use crate::sockets::accepted::Accepted;
use crate::sockets::peer::PeerInfo;

/// How long a test waits for what has to happen.
pub(super) const LONG: Duration = Duration::from_secs(20);

/// What the caller of a call got, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Headers(Vec<Pair>),
    Message(Vec<u8>),
    Status {
        code: i32,
        text: String,
        trailers: Vec<Pair>,
    },
}

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
        let mut state = self.state.lock();
        state.outstanding -= 1;
        state.events.push_back(Queued::Tell(Box::new(tell)));
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
                })
            }
            Queued::Tell(tell) => {
                tell();
                Event::Told
            }
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
            #[cfg(feature = "tls")]
            encryption: None,
        };
        let connections = &shared.ground.connections;
        connections.add(&*shared.transport, accepted, Duration::MAX, LONG);
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

    fn finish(&self) -> Finished {
        Finished::Told
    }

    fn shut_down(&self) {
        if let Some(guest) = self.guest.lock().take() {
            // Its callers see it.
            let lines = self.inner.state.lock().lines.clone();
            let of_this = lines.iter().filter(|it| it.connection == self.number);
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
        let pairs = metadata.iter();
        let line = Arc::new(Line {
            inner: Arc::clone(inner),
            connection: self.link.number,
            peer: self.link.peer.clone(),
            metadata: pairs
                .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()))
                .collect(),
            state: Mutex::new(LineState {
                time,
                requests,
                takes: self.takes.load(Ordering::SeqCst),
                ..LineState::default()
            }),
            changed: Condvar::new(),
        });
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

fn message_of(bytes: &[u8]) -> Message {
    Message::of_pieces([bytes], Compression::Identity)
}

/// A call, as its caller has it.
pub(super) struct Line {
    inner: Arc<Inner>,
    connection: u64,
    peer: String,
    metadata: Vec<(Vec<u8>, Vec<u8>)>,
    state: Mutex<LineState>,
    changed: Condvar,
}

#[derive(Default)]
struct LineState {
    time: Option<Duration>,
    requests: VecDeque<Message>,
    /// No more requests will come.
    has_said_all: bool,
    /// The network takes what is sent.
    takes: bool,
    has_left: bool,
    sent: Vec<Sent>,
    // What was begun and has not ended.
    receiving: Option<Arc<Call>>,
    sending: Option<(Arc<Call>, Told)>,
    watching: Option<Arc<Call>>,
    /// And whether it watches.
    finishing: Option<(Arc<Call>, bool)>,
    /// The status was taken.
    is_over: bool,
}

impl Line {
    /// Another request.
    pub(super) fn send(self: &Arc<Self>, bytes: &[u8]) {
        self.state.lock().requests.push_back(message_of(bytes));
        self.go_on();
    }

    /// There are no more requests.
    pub(super) fn say_all(self: &Arc<Self>) {
        self.state.lock().has_said_all = true;
        self.go_on();
    }

    /// Sets whether the network takes what is sent.
    pub(super) fn take(self: &Arc<Self>, takes: bool) {
        self.state.lock().takes = takes;
        self.go_on();
    }

    /// So much time is left until the deadline.
    pub(super) fn has_left_of_its_time(&self, time: Duration) {
        self.state.lock().time = Some(time);
    }

    /// The caller leaves.
    pub(super) fn leave(self: &Arc<Self>) {
        self.state.lock().has_left = true;
        self.go_on();
    }

    /// What was sent so far, once this holds of it.
    pub(super) fn sent_when(&self, is_there: impl Fn(&[Sent]) -> bool) -> Vec<Sent> {
        let mut state = self.state.lock();
        while !is_there(&state.sent) {
            let wait = self.changed.wait_for(&mut state, LONG);
            assert!(!wait.timed_out(), "there is only {:?}", state.sent);
        }
        state.sent.clone()
    }

    /// All that was sent, once the call is over.
    pub(super) fn sent(&self) -> Vec<Sent> {
        self.sent_when(|sent| matches!(sent.last(), Some(Sent::Status { .. })))
    }

    /// The code and the text of its status, once it is over.
    pub(super) fn status(&self) -> (i32, String) {
        match self.sent().pop() {
            Some(Sent::Status { code, text, .. }) => (code, text),
            other => panic!("{other:?} is no status"),
        }
    }

    /// What is said of a retry, once it is over.
    pub(super) fn pushback(&self) -> Option<i64> {
        let Some(Sent::Status { trailers, .. }) = self.sent().pop() else {
            panic!("no status");
        };
        let mut pairs = trailers.into_iter();
        let (_, value) = pairs.find(|(name, _)| name == "grpc-retry-pushback-ms")?;
        String::from_utf8(value).ok()?.parse().ok()
    }

    /// Whether anything was sent.
    pub(super) fn has_got_nothing(&self) -> bool {
        self.state.lock().sent.is_empty()
    }

    fn push(&self, state: &mut MutexGuard<'_, LineState>, sent: Sent) {
        assert!(
            !matches!(state.sent.last(), Some(Sent::Status { .. })),
            "{sent:?} behind the end"
        );
        state.sent.push(sent);
        self.changed.notify_all();
    }

    /// Ends the operations that can end now, and tells of them with no lock held.
    fn go_on(self: &Arc<Self>) {
        let mut state = self.state.lock();
        let gone = state.has_left && !state.is_over;
        let can_write = state.takes || gone;
        let sent = state.sending.take_if(|_| can_write);
        // The end goes behind the message.
        let is_free = state.sending.is_none();
        let finished = state.finishing.take_if(|_| can_write && is_free);
        state.is_over |= finished.is_some();
        let is_over = state.is_over;
        let watched = state.watching.take_if(|_| gone || is_over);
        let is_told = gone || is_over || state.has_said_all || !state.requests.is_empty();
        let receiving = state.receiving.take_if(|_| is_told);
        let received = receiving.map(|call| {
            let message = match gone || is_over {
                true => None,
                false => state.requests.pop_front(),
            };
            let failed = gone || (is_over && message.is_none() && !state.has_said_all);
            (call, message, failed)
        });
        drop(state);
        if let Some((call, message, failed)) = received {
            call.received(message, failed);
        }
        match sent {
            Some((call, Told::Directly)) => call.sent(!gone),
            Some((call, Told::InTurn)) => self.inner.push_end(move || call.sent_in_turn()),
            None => {}
        }
        if let Some(call) = watched {
            self.inner.push_end(move || call.closed(gone));
        }
        if let Some((call, watches)) = finished {
            self.inner.push_end(move || call.written(watches && gone));
        }
    }
}

/// The server's side of a line.
struct MemoryWire(Arc<Line>);

impl Wire for MemoryWire {
    fn metadata(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let (name, value) = self.0.metadata.get(index)?;
        Some((name, value))
    }

    fn peer(&self) -> String {
        self.0.peer.clone()
    }

    fn connection(&self) -> Option<u64> {
        Some(self.0.connection)
    }

    fn time_to_deadline(&self) -> Option<Duration> {
        self.0.state.lock().time
    }

    fn watch(&self, call: &Arc<Call>) {
        self.0.inner.begin();
        let before = self.0.state.lock().watching.replace(Arc::clone(call));
        assert!(before.is_none(), "a call is watched once");
        self.0.go_on();
    }

    fn receive(&self, call: &Arc<Call>) -> bool {
        let before = self.0.state.lock().receiving.replace(Arc::clone(call));
        assert!(before.is_none(), "one message is received at a time");
        self.0.go_on();
        true
    }

    fn send(
        &self,
        call: &Arc<Call>,
        headers: Option<&[Pair]>,
        message: Outgoing,
        told: Told,
    ) -> bool {
        if told == Told::InTurn {
            self.0.inner.begin();
        }
        let mut state = self.0.state.lock();
        assert!(state.sending.is_none(), "one message is sent at a time");
        if let Some(headers) = headers {
            self.0.push(&mut state, Sent::Headers(headers.to_vec()));
        }
        let bytes = message.as_bytes().to_vec();
        self.0.push(&mut state, Sent::Message(bytes));
        state.sending = Some((Arc::clone(call), told));
        drop(state);
        self.0.go_on();
        true
    }

    fn send_headers(&self, _: &Arc<Call>, headers: &[Pair]) -> bool {
        let mut state = self.0.state.lock();
        self.0.push(&mut state, Sent::Headers(headers.to_vec()));
        true
    }

    fn finish(&self, call: &Arc<Call>, finish: Finish<'_>) -> bool {
        self.0.inner.begin();
        let mut state = self.0.state.lock();
        if let Some(headers) = finish.headers {
            self.0.push(&mut state, Sent::Headers(headers.to_vec()));
        }
        if let Some(message) = finish.message {
            let bytes = message.into_bytes();
            self.0.push(&mut state, Sent::Message(bytes));
        }
        let status = Sent::Status {
            code: finish.code,
            text: finish.text.to_owned(),
            trailers: finish.trailers.to_vec(),
        };
        self.0.push(&mut state, status);
        state.finishing = Some((Arc::clone(call), finish.watch));
        drop(state);
        self.0.go_on();
        true
    }
}
