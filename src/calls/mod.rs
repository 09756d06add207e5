//! Who runs a call.
//!
//! A call comes in by a [transport](transport), and from then on everything is decided here: whether it is run, by which
//! thread and when, what becomes of it as its deadline passes, its caller leaves or the server stops, and when it has
//! landed. What it offers upwards is small: a [`Runner`] that is told to start, drain, cancel and stop, a [`Host`] that
//! runs handlers, and [`Call`]s to run them on. It knows nothing of phases or signals.
//!
//! What it needs below is the face in [`transport`]: nothing here names what stands behind that.
//!
//! | what | where |
//! |---|---|
//! | a call, its messages, its end | `call/` |
//! | which thread polls, runs, rests; the backlog | `roster`, `decision`, `queues`, `lanes` |
//! | what one connection may have of what all need | `shares`, `queues`, `lanes`, `stream_threads` |
//! | handlers of streams that wait for their callers | `aside`, `at_stream`, `stream_threads` |
//! | which call is not run, and which is cut | `admission`, `method` (policies as limits), `record` (the reasons), `pushback` |
//! | deadlines | `timers` |
//! | the threads | `poll`, `threads`, `hiring`, `seats`, `renewal/`, `pace` |
//! | connections: accepted, counted, looked after, taken down | `connections`, `attend`, `link`, `origin`, `housekeeper/`, `drain` (the rules) |
//! | which connections are sent away while the server goes on | `depart`, `leaving` and `progress` (the rules), `housekeeper/` |
//! | calls that go on without their handler, and those that have a worker while there is something to do | `detached`, `call/steps` |
//! | which streams a drain does not wait for, since they are idle | `quiet` |
//! | the thread that keeps the time of it all | `housekeeper` |

mod abandoned;
mod admission;
mod aside;
mod at_stream;
mod attend;
mod call;
mod codes;
mod connections;
mod decision;
mod depart;
mod detached;
mod drain;
mod fault;
mod hiring;
mod host;
mod housekeeper;
mod lanes;
mod leaving;
mod link;
pub(crate) mod log_limit;
#[cfg(test)]
mod memory_transport;
mod message;
mod method;
mod observer;
mod origin;
mod outgoing;
mod pace;
pub(crate) mod peer;
mod poll;
mod progress;
mod pushback;
mod queues;
mod quiet;
mod record;
mod refusals;
mod renewal;
mod roster;
mod runner;
mod seats;
mod seconds;
mod shared;
mod shares;
mod stopping;
mod stream_threads;
#[cfg(test)]
mod tests;
mod threads;
mod timers;
pub(crate) mod transport;
mod waiting;

pub(crate) use self::call::ending::SHED;
pub(crate) use self::call::ground::Ground;
pub(crate) use self::call::{
    Call, Ending, Handled, Landed, Pair, Received, Retry, SendError, Wait,
};
pub(crate) use self::connections::Guest;
pub(crate) use self::drain::Times as DrainTimes;
pub(crate) use self::fault::Fault;
pub(crate) use self::host::Host;
pub(crate) use self::leaving::{Lasting, Why};
#[cfg(test)]
pub(crate) use self::message::is_read_whole_in_steps;
pub(crate) use self::message::{Compression, Keeper, Kept, Look, Message};
pub(crate) use self::method::{IdleTimes, Limit, Method};
pub(crate) use self::observer::{Connection, Observer, TurnedAway};
pub(crate) use self::outgoing::Outgoing;
pub(crate) use self::record::{Moved, Record, Refusal};
pub(crate) use self::runner::{Config, Runner};
pub(crate) use self::seats::Running;
