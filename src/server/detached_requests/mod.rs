//! Streams of requests that need no thread: a worker runs the program's code while there is something to do.
//!
//! A step does one thing: it hands the handler a request, say, or tells it that the server drains. What it does is
//! decided here, from what the call and the [outbox](outbox::Outbox) say; that a step is run at all, and one at a time, is
//! up to `calls`.

mod handler;
mod outbox;
mod replies;

use std::marker::PhantomData;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use protobuf::Message as Protobuf;

use crate::calls::{self, Outgoing, Received};
use crate::caught::caught;
use crate::thrown::message_of;

pub use self::handler::{StreamHandler, UploadHandler};
pub use self::replies::StreamReplies;

use self::outbox::Outbox;
use super::call::Call;
use super::codec::{decode_seen, encode};
use super::context::{self, Steps};
use super::dispatch::log_failure;
use super::interceptor::{failure, panicked};
use super::status::Status;
use super::stream::{end_with, why_ended, Replies, Requests};

const WHO: &str = "the handler of a detached stream";

impl<Q: Protobuf> Requests<Q> {
    /// Lets the call outlive its handler: from now on `handler` is called with each request, by a worker that is taken
    /// for no longer than that. Ten thousand quiet streams then need no ten thousand threads.
    ///
    /// For a handler to return what this does. When it has returned, `handler` is
    /// [told so](StreamHandler::begin), and then gets the requests that were not read before. An error from the
    /// handler, or a panic, ends the call there and then. What the handler has sent before comes first: this blocks, as [`Replies::send`]
    /// does, until the network has taken it.
    ///
    /// See [`StreamHandler`] for an example, and for how the stream ends.
    ///
    /// # Errors
    ///
    /// A [`Status`] for the handler to return: the call is over, or has to be; INTERNAL if `replies` are those of another
    /// call, or the handler has returned already.
    pub fn detach<R, H>(self, replies: Replies<R>, handler: H) -> Result<(), Status>
    where
        R: Protobuf,
        H: StreamHandler<Q, R>,
    {
        if !Arc::ptr_eq(self.core(), replies.core()) {
            return Err(Status::internal(
                "a call was to be detached with the replies of another one",
            ));
        }
        replies.until_taken()?;
        let outbox = Arc::new(Outbox::new(self.core()));
        let replies = StreamReplies::new(&outbox);
        detach(self, outbox, Talk { handler, replies })
    }

    /// As [`detach`](Self::detach), for a stream of requests that gets one reply, at its end.
    ///
    /// What this returns is for the handler to return, so that it has the right type; it is not sent.
    ///
    /// # Errors
    ///
    /// A [`Status`] for the handler to return: INTERNAL if the handler has returned already.
    pub fn detach_upload<R, H>(self, handler: H) -> Result<R, Status>
    where
        R: Protobuf,
        H: UploadHandler<Q, R>,
    {
        let outbox = Arc::new(Outbox::new(self.core()));
        let upload = Upload {
            handler,
            reply: PhantomData,
        };
        detach(self, outbox, upload)?;
        Ok(R::new())
    }
}

fn detach<Q: Protobuf>(
    requests: Requests<Q>,
    outbox: Arc<Outbox>,
    actor: impl Actor<Q>,
) -> Result<(), Status> {
    let (core, limit) = requests.into_parts();
    let outlet: Weak<Outbox> = Arc::downgrade(&outbox);
    context::set_outlet(&core, outlet);
    let steps = Stream {
        outbox,
        limit,
        acting: Mutex::new(Some(Acting {
            actor,
            has_begun: false,
            knows_of_drain: false,
        })),
        message: PhantomData,
    };
    context::set_steps(&core, Box::new(steps));
    match core.go_on_in_steps() {
        true => Ok(()),
        false => Err(Status::internal(
            "a stream was to be detached after its handler had returned",
        )),
    }
}

/// What both kinds of handlers are to a stream.
trait Actor<Q>: Send + 'static {
    fn begin(&mut self) -> Result<(), Status>;
    fn request(&mut self, request: Q) -> Result<(), Status>;
    fn has_room(&mut self) -> Result<(), Status>;
    /// With a reply, the call ends.
    fn draining(&mut self) -> Result<Option<Outgoing>, Status>;
    /// The last reply, if it was not sent before.
    fn end(self) -> Result<Option<Outgoing>, Status>;
    fn cancelled(&mut self, why: &Status);
}

struct Talk<R, H> {
    handler: H,
    replies: StreamReplies<R>,
}

impl<Q: Protobuf, R: Protobuf, H: StreamHandler<Q, R>> Actor<Q> for Talk<R, H> {
    fn begin(&mut self) -> Result<(), Status> {
        self.handler.begin(&self.replies)
    }

    fn request(&mut self, request: Q) -> Result<(), Status> {
        self.handler.request(request, &self.replies)
    }

    fn has_room(&mut self) -> Result<(), Status> {
        self.handler.has_room(&self.replies)
    }

    fn draining(&mut self) -> Result<Option<Outgoing>, Status> {
        self.handler.draining(&self.replies).map(|()| None)
    }

    fn end(self) -> Result<Option<Outgoing>, Status> {
        self.handler.end(&self.replies).map(|()| None)
    }

    fn cancelled(&mut self, why: &Status) {
        self.handler.cancelled(why);
    }
}

struct Upload<R, H> {
    handler: H,
    reply: PhantomData<fn() -> R>,
}

impl<Q: Protobuf, R: Protobuf, H: UploadHandler<Q, R>> Actor<Q> for Upload<R, H> {
    fn begin(&mut self) -> Result<(), Status> {
        Ok(())
    }

    fn request(&mut self, request: Q) -> Result<(), Status> {
        self.handler.request(request)
    }

    fn has_room(&mut self) -> Result<(), Status> {
        Ok(())
    }

    fn draining(&mut self) -> Result<Option<Outgoing>, Status> {
        let reply = self.handler.draining()?;
        reply.as_ref().map(encode).transpose()
    }

    fn end(self) -> Result<Option<Outgoing>, Status> {
        encode(&self.handler.end()?).map(Some)
    }

    fn cancelled(&mut self, why: &Status) {
        self.handler.cancelled(why);
    }
}

/// A stream that goes on in steps.
struct Stream<Q, A> {
    outbox: Arc<Outbox>,
    /// How large a request may be, in bytes.
    limit: usize,
    /// Until the stream ends. Nobody ever waits for the lock, as one step runs at a time.
    acting: Mutex<Option<Acting<A>>>,
    message: PhantomData<fn(Q)>,
}

struct Acting<A> {
    actor: A,
    has_begun: bool,
    knows_of_drain: bool,
}

/// What a step is about.
enum News<Q> {
    Begin,
    Drain,
    Room,
    Request(Q),
    /// A request that cannot be read.
    Unreadable(Status),
    LastRequest,
    /// Somebody has said how the stream ends.
    Finished,
    /// The call is over, or has to be.
    Over,
    Nothing,
}

/// What became of a step.
enum Done {
    GoesOn,
    /// It ends once everything is sent.
    Ends(Result<(), Status>),
    /// It ends with this reply.
    Replies(Outgoing),
}

impl<Q: Protobuf, A: Actor<Q>> Stream<Q, A> {
    fn news(&self, core: &Arc<calls::Call>, acting: &mut Acting<A>) -> News<Q> {
        if self.must_end(core) {
            return News::Over;
        }
        if !std::mem::replace(&mut acting.has_begun, true) {
            return News::Begin;
        }
        if self.outbox.is_to_end() {
            return News::Finished;
        }
        if core.is_draining() && !std::mem::replace(&mut acting.knows_of_drain, true) {
            return News::Drain;
        }
        if self.outbox.take_room() {
            return News::Room;
        }
        if !self.outbox.is_idle() {
            return News::Nothing;
        }
        match core.take_received() {
            Received::TimedOut => News::Nothing,
            Received::End => News::LastRequest,
            Received::Ended => News::Over,
            Received::Message(message) => {
                let look = message.look();
                core.note_compression(look.compression);
                match decode_seen(&message, &look, self.limit) {
                    Ok(request) => News::Request(request),
                    Err(status) => News::Unreadable(status),
                }
            }
        }
    }

    fn must_end(&self, core: &Arc<calls::Call>) -> bool {
        core.has_to_end() || core.has_ended() || self.outbox.is_broken()
    }

    /// Runs the program's code. A panic is how it fails.
    fn run(&self, call: &Call, run: impl FnOnce() -> Result<Done, Status>) -> Done {
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Ok(done)) => done,
            Ok(Err(status)) => Done::Ends(Err(failure(call, WHO, status))),
            Err(panic) => Done::Ends(Err(panicked(call, WHO, message_of(panic)))),
        }
    }

    /// Drops the handler.
    fn let_go(&self, acting: Option<Acting<A>>) {
        caught(format_args!("{WHO}, as it was dropped,"), || drop(acting));
    }

    /// Says the end if its time has come.
    fn end_if_sent(&self, core: &Arc<calls::Call>) {
        if self.must_end(core) {
            if self.outbox.close() {
                end_with(core, None, &why_ended(core));
            }
        } else if let Some(end) = self.outbox.take_end() {
            let call = Call::new(Arc::clone(core));
            let status = end.err().map_or_else(Status::ok, |status| {
                let status = failure(&call, WHO, status);
                log_failure(&call, &status);
                status
            });
            end_with(core, None, &status);
        } else {
            self.outbox.go_on(core);
        }
    }
}

impl<Q: Protobuf, A: Actor<Q>> Steps for Stream<Q, A> {
    fn step(&self, core: &Arc<calls::Call>) {
        let mut place = self.acting.lock();
        if core.is_handled() {
            // The handler of the method has failed after it had detached the stream.
            self.outbox.close();
            let acting = place.take();
            drop(place);
            return self.let_go(acting);
        }
        let Some(acting) = place.as_mut() else {
            drop(place);
            return self.end_if_sent(core);
        };
        let call = Call::new(Arc::clone(core));
        let news = self.news(core, acting);
        let actor = &mut acting.actor;
        let go_on = |()| Done::GoesOn;
        let reply = |reply: Option<Outgoing>| reply.map_or(Done::GoesOn, Done::Replies);
        let done = match news {
            News::Nothing => Done::GoesOn,
            News::Begin => {
                if core.is_draining() {
                    // Those who were told of the drain were told before this stream was there.
                    core.ask_for_step();
                }
                self.run(&call, || actor.begin().map(go_on))
            }
            News::Drain => self.run(&call, || actor.draining().map(reply)),
            News::Room => self.run(&call, || actor.has_room().map(go_on)),
            News::Request(request) => self.run(&call, || actor.request(request).map(go_on)),
            News::Unreadable(status) => Done::Ends(Err(status)),
            News::Finished => Done::Ends(Ok(())),
            News::LastRequest => {
                let acting = place.take().expect("it was there a moment ago");
                self.run(&call, || {
                    let reply = acting.actor.end()?;
                    Ok(reply.map_or(Done::Ends(Ok(())), Done::Replies))
                })
            }
            News::Over => {
                let why = why_ended(core);
                caught(format_args!("{}: {WHO}", call.method()), || {
                    actor.cancelled(&why);
                });
                self.let_go(place.take());
                if self.outbox.close() {
                    end_with(core, None, &why);
                }
                return;
            }
        };
        match done {
            Done::GoesOn => {
                drop(place);
                self.outbox.go_on(core);
            }
            Done::Ends(end) => {
                // If the program has said another end before, that is it.
                self.outbox.note_end(end);
                self.let_go(place.take());
                drop(place);
                self.end_if_sent(core);
            }
            Done::Replies(reply) => {
                self.outbox.close();
                self.let_go(place.take());
                drop(place);
                end_with(core, Some(reply), &Status::ok());
            }
        }
    }
}
