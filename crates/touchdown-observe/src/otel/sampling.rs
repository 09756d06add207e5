//! Which calls are recorded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::context::Caller;
use super::ids::{next, RANDOMNESS};

/// One second, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

/// Decides by what the caller says, and by numbers that are as good as thrown dice.
pub(super) struct Sampler {
    /// A trace is sampled whose randomness is at least this. It is what OpenTelemetry's ProbabilitySampler computes, so
    /// two servers with the same share sample the same traces.
    threshold: u64,
    /// Whether what the caller has decided holds.
    parent_based: bool,
    /// Whether what the caller says of its trace is believed.
    trust_parent: bool,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// A trace begins with it, with this randomness.
    Root { is_sampled: bool, randomness: u64 },
    /// It goes on with its caller's trace.
    Child { is_sampled: bool },
}

impl Sampler {
    /// For a share from 0 to 1.
    pub(super) fn new(share: f64, parent_based: bool, trust_parent: bool) -> Sampler {
        let all = RANDOMNESS + 1;
        // Both are exact for 0 and for 1.
        let threshold = all - (share.clamp(0.0, 1.0) * all as f64) as u64;
        Sampler {
            threshold,
            parent_based,
            trust_parent,
        }
    }

    pub(super) fn decide(&self, caller: Option<Caller>) -> Decision {
        match caller.filter(|_| self.trust_parent) {
            Some(caller) if self.parent_based => Decision::Child {
                is_sampled: caller.is_sampled(),
            },
            Some(caller) => Decision::Child {
                is_sampled: caller.trace.randomness() >= self.threshold,
            },
            None => {
                let randomness = next() & RANDOMNESS;
                Decision::Root {
                    is_sampled: randomness >= self.threshold,
                    randomness,
                }
            }
        }
    }

    /// The randomness of a trace that is not sampled. If all are, some of them all the same: those beyond the cap.
    pub(super) fn unsampled_randomness(&self) -> u64 {
        match self.threshold {
            0 => next() & RANDOMNESS,
            threshold => next() % threshold,
        }
    }
}

/// How many spans are recorded in a second at the most: a bucket of tokens that holds as many as flow in in one
/// second. It is kept as the time at which it will be full again.
pub(super) struct Cap {
    /// From one token to the next, in nanoseconds; `None` if there are none.
    interval: Option<u64>,
    begun: Instant,
    /// When it is full, in nanoseconds since `begun`.
    full_at: AtomicU64,
}

impl Cap {
    pub(super) fn new(spans_per_second: u32) -> Cap {
        Cap {
            interval: SECOND.checked_div(spans_per_second.into()),
            begun: Instant::now(),
            full_at: AtomicU64::new(0),
        }
    }

    /// Takes a token, if there is one.
    pub(super) fn admits(&self) -> bool {
        let admits = |interval| self.admits_at(interval, self.begun.elapsed());
        self.interval.is_some_and(admits)
    }

    fn admits_at(&self, interval: u64, now: Duration) -> bool {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let limit = now.saturating_add(SECOND);
        // Nothing else depends on it.
        let taken = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                let next = full_at.max(now).saturating_add(interval);
                (next <= limit).then_some(next)
            });
        taken.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::otel::ids::{SpanId, TraceId};

    fn caller(randomness: u64, flags: u8) -> Option<Caller> {
        Some(Caller {
            trace: TraceId::random_with(randomness),
            span: SpanId::random(),
            flags,
        })
    }

    fn is_sampled(decision: Decision) -> bool {
        match decision {
            Decision::Root { is_sampled, .. } | Decision::Child { is_sampled } => is_sampled,
        }
    }

    #[test]
    fn the_callers_word_holds_whatever_the_share() {
        for share in [0.0, 0.1, 1.0] {
            let sampler = Sampler::new(share, true, true);
            for randomness in [0, RANDOMNESS] {
                let yes = sampler.decide(caller(randomness, 1));
                assert_eq!(yes, Decision::Child { is_sampled: true });
                let no = sampler.decide(caller(randomness, 2));
                assert_eq!(no, Decision::Child { is_sampled: false });
            }
        }
    }

    #[test]
    fn without_the_callers_word_the_id_decides() {
        let sampler = Sampler::new(0.25, false, true);
        let threshold = (RANDOMNESS + 1) / 4 * 3;
        for flags in [0, 1] {
            assert!(is_sampled(sampler.decide(caller(threshold, flags))));
            assert!(!is_sampled(sampler.decide(caller(threshold - 1, flags))));
        }
    }

    #[test]
    fn a_caller_who_is_not_trusted_is_in_no_trace() {
        let sampler = Sampler::new(0.0, true, false);
        let decision = sampler.decide(caller(RANDOMNESS, 1));
        assert!(matches!(
            decision,
            Decision::Root {
                is_sampled: false,
                ..
            }
        ));
    }

    #[test]
    fn none_and_all_are_exact() {
        let (none, all) = (Sampler::new(0.0, true, true), Sampler::new(1.0, true, true));
        for _ in 0..10_000 {
            assert!(!is_sampled(none.decide(None)));
            assert!(is_sampled(all.decide(None)));
        }
        assert_eq!((none.threshold, all.threshold), (RANDOMNESS + 1, 0));
    }

    #[test]
    fn a_tenth_is_a_tenth() {
        let sampler = Sampler::new(0.1, true, true);
        let sampled = (0..100_000)
            .filter(|_| is_sampled(sampler.decide(None)))
            .count();
        // Ten standard deviations.
        assert!((9_050..=10_950).contains(&sampled), "{sampled}");
    }

    #[test]
    fn ids_that_are_not_sampled_are_sampled_by_nobody_with_this_share() {
        for share in [0.0, 0.1, 0.999] {
            let sampler = Sampler::new(share, false, true);
            for _ in 0..1000 {
                let randomness = sampler.unsampled_randomness();
                assert!(!is_sampled(sampler.decide(caller(randomness, 1))));
            }
        }
    }

    #[test]
    fn the_cap_lets_through_what_it_says() {
        let cap = Cap::new(10);
        let at = |millis| Duration::from_millis(millis);
        let interval = cap.interval.unwrap();
        let admitted = |now| (0..100).filter(|_| cap.admits_at(interval, now)).count();
        assert_eq!(admitted(at(0)), 10);
        assert_eq!(admitted(at(99)), 0);
        assert_eq!(admitted(at(100)), 1);
        assert_eq!(admitted(at(350)), 2);
        // It holds no more than those of one second.
        assert_eq!(admitted(at(60_000)), 10);
    }

    #[test]
    fn a_cap_of_zero_lets_nothing_through_and_the_highest_all() {
        assert!(!Cap::new(0).admits());
        let highest = Cap::new(u32::MAX);
        assert!((0..100_000).all(|_| highest.admits()));
    }
}
