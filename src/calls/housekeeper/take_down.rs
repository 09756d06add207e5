//! The drain, as it goes: what the server does about its connections from the first GOAWAY to the last FIN. The rules
//! are in [`drain`](crate::calls::drain).

use std::time::{Duration, Instant};

use super::Housekeeper;
use crate::calls::connections::Cut;
use crate::calls::drain::{Calls, Patience};
use crate::logging;
use crate::running_time::SLICE;
use crate::sockets::listener::QUEUE;

/// How often to look whether the peers' kernels have acknowledged the last
/// bytes, when that is all there is to wait for. No event says so. The longer it takes, the less often: each
/// time a sixteenth of what it has taken so far.
const DELIVERY_CHECK: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// How long a drain waits for a connection on which nobody ever made a call: four round
/// trips (GOAWAY and ping, ack, final GOAWAY, FIN) as the kernel has measured
/// them, but at least and at most this. It begins with the last sign of life, which may be the kernel's own: it
/// acknowledges GOAWAY within 200 ms, so that a stop stays well below a second. A client that had a call on its way makes
/// it again by itself, since it is told that none was served.
const STRANGERS: (Duration, Duration) = (Duration::from_millis(400), Duration::from_millis(2500));

/// How long before the end of the grace period everybody is told the last call, so that they still hear it: a round
/// trip on a slow link, but never more than a quarter of the grace period.
const FAREWELL: Duration = Duration::from_secs(1);

pub(super) enum Drain {
    NotBegun,
    /// GOAWAY is sent.
    Under {
        /// When, in running time.
        since: Duration,
        patience: Patience,
        /// Not to be looked at before: each connection that ends wakes this thread.
        next_look: Duration,
    },
    Done,
}

impl Housekeeper<'_> {
    /// Tells the host what was cut. Where nothing was drained, because the program had not come to serve, nobody was
    /// promised anything; what is still running there is abandoned, and counted so.
    pub(super) fn tell_of(&self, cut: Cut) {
        if cut.connections > 0 && !matches!(self.drain, Drain::NotBegun) {
            logging::warn!(
                "cut {} connections whose clients did not take or acknowledge all that they were sent, \
                 with {} answers that were sent and did not arrive",
                cut.connections,
                cut.answers
            );
            self.shared.ground.host.cut(cut.connections, cut.answers);
        }
    }

    /// Returns when to come again, if that is not over.
    pub(super) fn tell_when_clients_know(&mut self, now: Instant) -> Option<Instant> {
        if self.clients_know_at.take_if(|it| *it <= now).is_some() {
            self.shared.ground.host.clients_know();
        }
        self.clients_know_at
    }

    /// Returns when to come again, if nobody calls earlier.
    pub(super) fn go_on_draining(&mut self, now: Instant) -> Option<Instant> {
        let shared = self.shared;
        match &mut self.drain {
            Drain::NotBegun => {
                // What the kernel has already accepted for us is served, too.
                let queues = shared.listening.lock().own_queues();
                for index in 0..queues {
                    self.accept_from(index, QUEUE as usize);
                }
                let (given, has_successor) = {
                    let mut listening = shared.listening.lock();
                    (listening.close(), listening.is_handed_over())
                };
                given.into_iter().for_each(|it| self.admit(it));
                shared.ground.connections.begin_drain();
                shared.transport.send_goaways();
                let strangers = (shared.ground.connections.longest_round_trip() * 4)
                    .clamp(STRANGERS.0, STRANGERS.1);
                // Two round trips of the four, more or less.
                self.clients_know_at = Some(now + strangers / 4);
                let times = shared.ground.stopping.times();
                let grace = times.grace_period;
                let end = self.now.saturating_add(grace - FAREWELL.min(grace / 4));
                let patience = Patience {
                    strangers,
                    // Beside a successor nobody waits for this drain's end.
                    silence: match has_successor {
                        true => Duration::MAX,
                        false => times.peer_silence,
                    },
                    end,
                    hurry: None,
                };
                let since = self.now;
                self.drain = Drain::Under {
                    since,
                    patience,
                    next_look: since,
                };
                Some(now)
            }
            Drain::Under {
                since,
                patience,
                next_look,
            } => {
                if self.now < *next_look && shared.ground.connections.count() > 0 {
                    return Some(now + (*next_look - self.now));
                }
                if shared.ground.stopping.is_told() {
                    patience.hurry = Some(match shared.ground.host.in_flight() {
                        0 => Calls::None,
                        _ => Calls::Running,
                    });
                }
                let began = Instant::now();
                let attended = shared.ground.connections.attend(self.now, patience);
                // With many connections a look takes long, and must not take all of a processor.
                *next_look = self.now + began.elapsed() * 2;
                if attended.finished > 0 {
                    logging::info!(
                        "told {} clients that do not answer which of their calls is the last",
                        attended.finished
                    );
                }
                let (since, mut cut) = (*since, attended.cut);
                cut += shared.ground.connections.take_lost();
                self.tell_of(cut);
                if attended.waited_for == 0 {
                    if shared.ground.host.in_flight() > 0 {
                        // The thread that lands the last call wakes this one. But time is counted.
                        return Some(now + SLICE);
                    }
                    self.drain = Drain::Done;
                    shared.ground.host.drained();
                    return None;
                }
                let mut next = attended.next.map_or(SLICE, |it| self.until(it));
                if attended.lingering > 0 {
                    let (least, most) = DELIVERY_CHECK;
                    next = next.min(((self.now - since) / 16).clamp(least, most));
                }
                Some(now + next)
            }
            Drain::Done => None,
        }
    }
}
