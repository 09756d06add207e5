//! The same messages for any number of callers, on streams that need no thread.

mod subscriber;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use protobuf::Message as Protobuf;

use crate::calls;
use crate::logging;

use self::subscriber::{Put, Subscriber};
use super::codec::encode;
use super::context;
use super::status::Status;
use super::stream::{why_ended, Replies};

/// What a [`Broadcast`] does about a subscriber whose queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowSubscriber {
    /// The oldest message in its queue is left out, so that it always gets the newest. For states and measurements.
    DropOldest,
    /// Its call ends with RESOURCE_EXHAUSTED, so that it gets every message or knows that it does not. For events.
    Disconnect,
    /// [`Broadcast::publish`] waits for it, this long for all subscribers together; who has made no room by then is
    /// disconnected. For events whose source can wait.
    Wait(Duration),
}

/// Sends the same messages to any number of subscribers.
///
/// # Broadcast vs detached streams
///
/// [`Replies::detach`] lets one stream go on without its handler, and leaves it to the program to feed and to finish
/// it. A broadcast does that for many: a message is encoded once, nobody waits for a slow subscriber unless that is
/// wanted, one that leaves is forgotten, and all of them are finished when the server drains. No subscriber takes a
/// thread: the threads that serve calls send each the next message as its network takes the last.
///
/// ```
/// use protobuf::well_known_types::wrappers::StringValue;
/// use touchdown::{Broadcast, Call, Replies, Server, Service, SlowSubscriber};
///
/// let news = Broadcast::new(16, SlowSubscriber::DropOldest);
/// let service = Service::builder("demo.News")
///     .server_streaming("Subscribe", {
///         let news = news.clone();
///         move |_: &Call, _: StringValue, replies: Replies<StringValue>| news.subscribe(replies)
///     })
///     .build();
/// let server = Server::builder().address("127.0.0.1:0").service(service).start()?;
/// news.publish(&StringValue { value: "something has happened".into(), ..Default::default() })?;
/// server.shutdown();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # The end
///
/// When the server drains, each subscriber gets what is in its queue, and then the end of its stream, with OK: a client
/// on gRPC C-core throws away what it has not read when a stream ends with an error. A program that ends them otherwise
/// calls [`finish`](Self::finish) before, such as when [`Lifecycle::stopping`](crate::lifecycle::Lifecycle::stopping) is
/// cancelled. A subscriber that takes nothing any more holds the drain as any call does: for the grace period, or for
/// as long as its method's [`DrainPolicy::Stream`](super::DrainPolicy::Stream) says.
///
/// [`Interceptor::after`](super::Interceptor::after) of a subscriber's call runs on a thread of the server's that has
/// other calls to serve, so it must not block.
///
/// # Memory
///
/// A subscriber holds no more than `capacity` messages, and one that is on its way. A message that waits is kept once,
/// however many wait for it; on its way, each has a copy.
///
/// A clone is the same broadcast. When the last is dropped, its subscribers are disconnected with UNAVAILABLE.
pub struct Broadcast<R: Protobuf> {
    shared: Arc<Shared<R>>,
}

struct Shared<R: Protobuf> {
    capacity: usize,
    slow: SlowSubscriber,
    /// Held while publishing: all subscribers get the messages in one order.
    turn: Mutex<()>,
    subscribers: Mutex<Subscribers<R>>,
    missed: AtomicU64,
}

struct Subscribers<R: Protobuf> {
    list: BTreeMap<u64, Arc<Subscriber<R>>>,
    next: u64,
    /// Set once there will be no more messages.
    end: Option<Result<(), Status>>,
}

impl<R: Protobuf> Broadcast<R> {
    /// A broadcast without subscribers. Each may have `capacity` messages waiting beside the one that is on its way;
    /// `slow` says what becomes of those that have more. With a capacity of 0 nothing waits, and
    /// [`DropOldest`](SlowSubscriber::DropOldest) leaves out the new message.
    pub fn new(capacity: usize, slow: SlowSubscriber) -> Broadcast<R> {
        let subscribers = Subscribers {
            list: BTreeMap::new(),
            next: 0,
            end: None,
        };
        Broadcast {
            shared: Arc::new(Shared {
                capacity,
                slow,
                turn: Mutex::default(),
                subscribers: Mutex::new(subscribers),
                missed: AtomicU64::new(0),
            }),
        }
    }

    /// Adds a subscriber, for a handler to return what this does. The call goes on without the handler, and gets every
    /// message that is published from now on.
    ///
    /// What the handler has sent before comes first: this blocks, as [`Replies::send`] does, until the network has taken
    /// it. After [`finish`](Self::finish) the call ends at once, in the same way.
    ///
    /// # Errors
    ///
    /// A [`Status`] for the handler to return: the call is over, or has to be.
    pub fn subscribe(&self, replies: Replies<R>) -> Result<(), Status> {
        replies.until_taken()?;
        let core = Arc::clone(replies.core());
        let replies = replies.detach();
        let subscriber = {
            let mut subscribers = self.shared.subscribers.lock();
            if let Some(end) = subscribers.end.clone() {
                drop(subscribers);
                replies.finish(end);
                return Ok(());
            }
            let key = subscribers.next;
            subscribers.next += 1;
            let shared = Arc::downgrade(&self.shared);
            let forget = move || forget(&shared, key);
            let subscriber = Arc::new(Subscriber::new(replies, forget));
            // Before anything is sent, of whose end nobody would be told.
            let outlet: Weak<Subscriber<R>> = Arc::downgrade(&subscriber);
            context::set_outlet(&core, outlet);
            subscribers.list.insert(key, Arc::clone(&subscriber));
            subscriber
        };
        // The list keeps it; what the call keeps must not keep the call.
        let of_call = Arc::downgrade(&subscriber);
        let (of_cancel, weak_core) = (of_call.clone(), Arc::downgrade(&core));
        core.on_cancel(move || {
            if let (Some(subscriber), Some(core)) = (of_cancel.upgrade(), weak_core.upgrade()) {
                subscriber.end(Err(why_ended(&core)));
            }
        });
        core.on_drain(move || {
            if let Some(subscriber) = of_call.upgrade() {
                subscriber.end_when_sent(Ok(()));
            }
        });
        Ok(())
    }

    /// Sends a message to all subscribers. Does not block, unless the broadcast [waits](SlowSubscriber::Wait) for slow
    /// subscribers, or another thread is publishing.
    ///
    /// # Errors
    ///
    /// INTERNAL if the message cannot be encoded; nobody gets it then.
    pub fn publish(&self, message: &R) -> Result<(), Status> {
        let message: Arc<[u8]> = Arc::from(encode(message)?.as_bytes());
        let shared = &self.shared;
        let _turn = shared.turn.lock();
        let mut full = Vec::new();
        for subscriber in shared.all() {
            match subscriber.put(&message, shared.capacity) {
                Put::Taken | Put::Over => {}
                Put::Full => full.push(subscriber),
            }
        }
        let deadline = match shared.slow {
            SlowSubscriber::Wait(time) => Instant::now().checked_add(time),
            _ => None,
        };
        for subscriber in full {
            let put = match shared.slow {
                SlowSubscriber::DropOldest => {
                    subscriber.put_for_oldest(&message, shared.capacity);
                    shared.missed.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                SlowSubscriber::Disconnect => Put::Full,
                SlowSubscriber::Wait(_) => {
                    subscriber.put_in_time(&message, shared.capacity, deadline)
                }
            };
            if put == Put::Full {
                logging::debug!("{subscriber:?} is disconnected: it is too slow");
                let waiting = shared.capacity + 1;
                subscriber.end(Err(Status::resource_exhausted(format!(
                    "too slow: {waiting} messages were waiting for this subscriber; subscribe again"
                ))));
            }
        }
        Ok(())
    }

    /// Ends the broadcast: each subscriber gets what is in its queue, and then this. So does who subscribes later.
    pub fn finish(&self, end: Result<(), Status>) {
        {
            let mut subscribers = self.shared.subscribers.lock();
            subscribers.end.get_or_insert(end.clone());
        }
        for subscriber in self.shared.all() {
            subscriber.end_when_sent(end.clone());
        }
    }

    /// How many subscribers there are.
    pub fn subscribers(&self) -> usize {
        let all = self.shared.all().into_iter();
        all.filter(|it| !it.is_over()).count()
    }

    /// How many messages slow subscribers have missed so far, counted for each of them.
    pub fn missed(&self) -> u64 {
        self.shared.missed.load(Ordering::Relaxed)
    }
}

impl<R: Protobuf> Shared<R> {
    fn all(&self) -> Vec<Arc<Subscriber<R>>> {
        self.subscribers.lock().list.values().cloned().collect()
    }
}

/// A subscriber's call is over.
fn forget<R: Protobuf>(shared: &Weak<Shared<R>>, key: u64) {
    if let Some(shared) = shared.upgrade() {
        // Dropped after the lock.
        let forgotten = shared.subscribers.lock().list.remove(&key);
        drop(forgotten);
    }
}

/// The message that was sent to a subscriber is on its way. Says whether this was one.
pub(super) fn sent(core: &Arc<calls::Call>) -> bool {
    let outlet = context::outlet(core);
    outlet.map(|it| it.sent(core)).is_some()
}

impl<R: Protobuf> Drop for Shared<R> {
    fn drop(&mut self) {
        for subscriber in self.all() {
            subscriber.end(Err(Status::unavailable("the broadcast is over")));
        }
    }
}

impl<R: Protobuf> Clone for Broadcast<R> {
    fn clone(&self) -> Broadcast<R> {
        Broadcast {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<R: Protobuf> fmt::Debug for Broadcast<R> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Broadcast")
            .field("subscribers", &self.subscribers())
            .field("capacity", &self.shared.capacity)
            .field("slow", &self.shared.slow)
            .finish_non_exhaustive()
    }
}
