//! A call in memory, from both of its sides.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::{Inner, MemoryLink, Queued, LONG};
use crate::calls::call::{Call, Pair};
use crate::calls::message::{Compression, Message};
use crate::calls::outgoing::Outgoing;
use crate::calls::transport::{Finish, Told, Wire};

/// What the caller of a call got, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::calls) enum Sent {
    Headers(Vec<Pair>),
    Message(Vec<u8>),
    Status {
        code: i32,
        text: String,
        trailers: Vec<Pair>,
    },
}

pub(in crate::calls) fn message_of(bytes: &[u8]) -> Message {
    Message::of_pieces([bytes], Compression::Identity)
}

/// A call, as its caller has it.
pub(in crate::calls) struct Line {
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
    receiving: Option<(Arc<Call>, Told)>,
    sending: Option<(Arc<Call>, Told)>,
    watching: Option<Arc<Call>>,
    /// And whether it watches.
    finishing: Option<(Arc<Call>, bool)>,
    /// The status was taken.
    is_over: bool,
}

impl Line {
    pub(in crate::calls) fn new(
        link: &MemoryLink,
        metadata: &[(&str, &[u8])],
        time: Option<Duration>,
        requests: VecDeque<Message>,
        takes: bool,
    ) -> Arc<Line> {
        let pairs = metadata.iter();
        Arc::new(Line {
            inner: Arc::clone(&link.inner),
            connection: link.number,
            peer: link.peer.clone(),
            metadata: pairs
                .map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec()))
                .collect(),
            state: Mutex::new(LineState {
                time,
                requests,
                takes,
                ..LineState::default()
            }),
            changed: Condvar::new(),
        })
    }

    pub(in crate::calls) fn is_on(&self, connection: u64) -> bool {
        self.connection == connection
    }

    /// Another request.
    pub(in crate::calls) fn send(self: &Arc<Self>, bytes: &[u8]) {
        self.state.lock().requests.push_back(message_of(bytes));
        self.go_on();
    }

    /// There are no more requests.
    pub(in crate::calls) fn say_all(self: &Arc<Self>) {
        self.state.lock().has_said_all = true;
        self.go_on();
    }

    /// Sets whether the network takes what is sent.
    pub(in crate::calls) fn take(self: &Arc<Self>, takes: bool) {
        self.state.lock().takes = takes;
        self.go_on();
    }

    /// So much time is left until the deadline.
    pub(in crate::calls) fn has_left_of_its_time(&self, time: Duration) {
        self.state.lock().time = Some(time);
    }

    /// The caller leaves.
    pub(in crate::calls) fn leave(self: &Arc<Self>) {
        self.state.lock().has_left = true;
        self.go_on();
    }

    /// What was sent so far, once this holds of it.
    pub(in crate::calls) fn sent_when(&self, is_there: impl Fn(&[Sent]) -> bool) -> Vec<Sent> {
        let mut state = self.state.lock();
        while !is_there(&state.sent) {
            let wait = self.changed.wait_for(&mut state, LONG);
            assert!(!wait.timed_out(), "there is only {:?}", state.sent);
        }
        state.sent.clone()
    }

    /// All that was sent, once the call is over.
    pub(in crate::calls) fn sent(&self) -> Vec<Sent> {
        self.sent_when(|sent| matches!(sent.last(), Some(Sent::Status { .. })))
    }

    /// The code and the text of its status, once it is over.
    pub(in crate::calls) fn status(&self) -> (i32, String) {
        match self.sent().pop() {
            Some(Sent::Status { code, text, .. }) => (code, text),
            other => panic!("{other:?} is no status"),
        }
    }

    /// What is said of a retry, once it is over.
    pub(in crate::calls) fn pushback(&self) -> Option<i64> {
        let Some(Sent::Status { trailers, .. }) = self.sent().pop() else {
            panic!("no status");
        };
        let mut pairs = trailers.into_iter();
        let (_, value) = pairs.find(|(name, _)| name == "grpc-retry-pushback-ms")?;
        String::from_utf8(value).ok()?.parse().ok()
    }

    /// Whether anything was sent.
    pub(in crate::calls) fn has_got_nothing(&self) -> bool {
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
        let received = receiving.map(|(call, told)| {
            let message = match gone || is_over {
                true => None,
                false => state.requests.pop_front(),
            };
            let failed = gone || (is_over && message.is_none() && !state.has_said_all);
            (call, told, message, failed)
        });
        drop(state);
        match received {
            Some((call, Told::Directly, message, failed)) => {
                call.received(message, failed);
                if call.is_stepped() {
                    call.ask_for_step();
                }
            }
            Some((call, Told::InTurn, message, failed)) => {
                self.inner
                    .push_last(Queued::Received(call, message, failed));
            }
            None => {}
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
pub(in crate::calls) struct MemoryWire(pub(in crate::calls) Arc<Line>);

impl MemoryWire {
    fn begin_to_receive(&self, call: &Arc<Call>, told: Told) -> bool {
        let receiving = (Arc::clone(call), told);
        let before = self.0.state.lock().receiving.replace(receiving);
        assert!(before.is_none(), "one message is received at a time");
        self.0.go_on();
        true
    }
}

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
        self.begin_to_receive(call, Told::Directly)
    }

    fn receive_in_turn(&self, call: &Arc<Call>) -> bool {
        self.0.inner.begin();
        self.begin_to_receive(call, Told::InTurn)
    }

    fn step(&self, call: &Arc<Call>) {
        let mut state = self.0.inner.state.lock();
        if !state.is_at_end {
            state.events.push_back(Queued::Step(Arc::clone(call)));
            self.0.inner.changed.notify_one();
        }
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
