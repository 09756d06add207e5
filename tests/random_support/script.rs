//! What happens to one process. The same for the same seed, in the parent and in the child.

use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use crate::common::Chance;

/// How far apart the signals have to come which stop the process: see src/lifecycle/signals.rs.
pub const SAME_WISH: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Script {
    pub seed: u64,
    pub streams: Streams,
    pub fault: Fault,
    pub reload: Reload,
    /// The server is a part of a lifecycle that has workers too, rather than served by `serve`.
    pub has_workers: bool,
    pub load: Load,
    /// The plan has time for second and third signals, and there is a call that does not end.
    pub is_patient: bool,
    pub first: Moment,
    /// Signals that come together, each with the time since those before.
    pub volleys: Vec<(Duration, Vec<i32>)>,
}

/// What the process has for standard input, output and error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// Nothing, and two files.
    Files,
    /// The first two are closed, so that the first sockets have their numbers: the lifecycle's.
    Closed,
    /// The same, once the start-up hooks run: the sockets of the server have their numbers.
    ClosedLater,
    /// Output and error are on a full disk.
    Full,
    /// Errors go to a pipe whose reader has left.
    Unread,
    /// Errors go to a pipe that is full, and whose reader hangs: who logs by himself does so, too, which is the first
    /// start-up hook. What touchdown logs holds nobody up, and is not written.
    Clogged,
}

/// What goes wrong in the process by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    StartFails,
    StartPanics,
    StartOverruns,
    ClosingFails,
    ClosingPanics,
    ClosingOverruns,
    UndoFails,
    /// The walk hangs once all is told, until the hard deadline.
    WalkHangs,
}

/// How a reload ends, after a few ms.
#[derive(Clone, Copy, Debug)]
pub enum Reload {
    Done,
    Fails,
    Panics,
    Hangs,
}

/// How many callers do what.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Make calls of some ms, one after the other, every other one to a method that may be cut.
    pub short: u64,
    /// Make a call that ends when it is told to.
    pub told: u64,
    /// Make a call that does not end.
    pub endless: u64,
    /// Subscribe to a stream that nobody feeds, and that may be cut.
    pub subscribers: u64,
    /// Subscribe to a stream that nobody ends.
    pub endless_subscribers: u64,
}

/// When the first signals come.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// So long after the process was forked.
    Forked(Duration),
    /// So long after the server serves.
    Serving(Duration),
    /// So long after it was told to reload, while it serves.
    Reloading(Duration),
}

impl Script {
    pub fn drawn(seed: u64) -> Script {
        // Neighbours must not have much in common.
        let mut chance = Chance(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
        let streams = [
            Streams::Files,
            Streams::Files,
            Streams::Closed,
            Streams::ClosedLater,
            Streams::Full,
            Streams::Full,
            Streams::Unread,
            Streams::Clogged,
        ];
        let streams = streams[chance.below(8) as usize];
        let faults = [
            Fault::StartFails,
            Fault::StartPanics,
            Fault::StartOverruns,
            Fault::ClosingFails,
            Fault::ClosingPanics,
            Fault::ClosingOverruns,
            Fault::UndoFails,
            Fault::WalkHangs,
        ];
        let reloads = [
            Reload::Done,
            Reload::Done,
            Reload::Done,
            Reload::Fails,
            Reload::Panics,
            Reload::Hangs,
        ];
        let is_loaded = chance.below(3) > 0;
        let mut callers = |limit| match is_loaded {
            true => chance.below(limit),
            false => 0,
        };
        let mut load = Load {
            short: callers(4),
            told: callers(2),
            // Most drains are to end by themselves.
            endless: callers(4) / 3,
            subscribers: callers(3),
            endless_subscribers: callers(4) / 3,
        };
        // Such a stop takes seconds, so there are few.
        let is_patient = chance.below(12) == 0;
        if is_patient {
            load.endless = 1;
        }
        let first = match chance.below(3) {
            // It never comes to serve.
            _ if streams == Streams::Clogged => Moment::Forked(chance.microseconds(60_000)),
            0 => Moment::Forked(chance.microseconds(30_000)),
            1 => Moment::Serving(chance.microseconds(20_000)),
            _ => Moment::Reloading(chance.microseconds(8_000)),
        };
        Script {
            seed,
            streams,
            fault: match faults.get(chance.below(20) as usize) {
                Some(fault) => *fault,
                None => Fault::None,
            },
            reload: reloads[chance.below(6) as usize],
            has_workers: chance.below(2) == 0,
            load,
            is_patient,
            first,
            volleys: volleys(&mut chance, is_patient),
        }
    }

    /// Whether something holds up the stop, so that nothing but the hard deadline or a third signal ends it.
    pub fn is_held_up(&self) -> bool {
        // A reload that runs keeps what clings from the walk.
        self.fault == Fault::WalkHangs && !self.signals().any(|it| it == SIGHUP)
    }

    /// How many of the signals may count which stop the process: those that come together are one wish.
    pub fn wishes(&self) -> usize {
        let mut since = None;
        let mut wishes = 0;
        for (distance, signals) in &self.volleys {
            since = since.map(|since| since + *distance);
            let stops = signals.iter().any(|it| [SIGTERM, SIGINT].contains(it));
            // Those that come nearly so late may count on a machine on which sending them takes its time.
            if stops && since.is_none_or(|since| since * 2 > SAME_WISH) {
                wishes += 1;
                since = Some(Duration::ZERO);
            }
        }
        wishes
    }

    /// The signals that the process gets, in order.
    pub fn signals(&self) -> impl Iterator<Item = i32> + '_ {
        let reload = matches!(self.first, Moment::Reloading(_)).then_some(SIGHUP);
        reload.into_iter().chain(
            self.volleys
                .iter()
                .flat_map(|(_, signals)| signals.iter().copied()),
        )
    }
}

/// One to four, of one to three signals each, and one TERM at the least: nothing else would stop it.
fn volleys(chance: &mut Chance, is_patient: bool) -> Vec<(Duration, Vec<i32>)> {
    let signals = [
        SIGTERM, SIGTERM, SIGTERM, SIGTERM, SIGINT, SIGINT, SIGHUP, SIGUSR1,
    ];
    let count = match is_patient {
        true => 3 + chance.below(2),
        false => 1 + chance.below(4),
    };
    let mut volleys: Vec<(Duration, Vec<i32>)> = (0..count)
        .map(|_| {
            // At once, in the same phase, or at any moment up to the end.
            let limit = [1, 2_000, 60_000][chance.below(3) as usize];
            let distance = chance.microseconds(limit);
            // Some come as second signals and third, others as the same wish again.
            let distance = match is_patient && chance.below(3) > 0 {
                true => distance + SAME_WISH + Duration::from_millis(100),
                false => distance,
            };
            // Most come alone.
            let size = 1 + chance.below(5).saturating_sub(2);
            let volley = (0..size).map(|_| signals[chance.below(8) as usize]);
            (distance, volley.collect())
        })
        .collect();
    if !volleys.iter().any(|(_, it)| it.contains(&SIGTERM)) {
        let last = volleys.last_mut().expect("there is one");
        last.1.push(SIGTERM);
    }
    volleys
}
