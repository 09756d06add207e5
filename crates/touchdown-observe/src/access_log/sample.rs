//! One in so many, counted by each thread for itself and for each method.
//!
//! A counter for all threads would be a cache line that they fight for; one for all methods would never come to one of
//! two methods that are called in turn. So each thread has a number for each method: how many calls it has counted since the one
//! that was logged last. A thread that ends hands its numbers on to the next that comes to the method, so that threads which
//! come and go lose none.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use touchdown::{MethodName, ServedMethod};

/// One in so many calls: of these methods, and of all others.
pub(super) struct Rates {
    pub(super) others: u32,
    pub(super) methods: Vec<(MethodName, u32)>,
}

impl Rates {
    pub(super) fn new(others: u32) -> Rates {
        Rates {
            others,
            methods: Vec::new(),
        }
    }
}

pub(super) struct Sampler {
    rates: Rates,
    /// By the numbers of the methods, which are known once the server is there.
    methods: OnceLock<Box<[Method]>>,
}

struct Method {
    one_in: u32,
    /// What threads that have ended had counted. Begins one short of full, so that the first call is logged.
    left: AtomicU64,
}

thread_local! {
    /// Of each sampler of which this thread has counted a call. There is hardly ever more than one.
    static COUNTERS: RefCell<Vec<Counters>> = const { RefCell::new(Vec::new()) };
}

struct Counters {
    of: Weak<Sampler>,
    counts: Box<[u64]>,
}

/// Nothing was counted yet.
const NEW: u64 = u64::MAX;

impl Sampler {
    pub(super) fn new(rates: Rates) -> Arc<Sampler> {
        Arc::new(Sampler {
            rates,
            methods: OnceLock::new(),
        })
    }

    /// Learns what the server has. Returns a method that has a rate, and that it does not have.
    pub(super) fn learn(&self, served: &[ServedMethod]) -> Result<(), MethodName> {
        let is = |served: &ServedMethod, name: &MethodName| {
            (served.service, served.name) == (name.service(), name.name())
        };
        let named = self.rates.methods.iter();
        if let Some((name, _)) = named
            .clone()
            .find(|it| !served.iter().any(|served| is(served, &it.0)))
        {
            return Err(*name);
        }
        let methods = served.iter().map(|served| {
            // The last that was said holds.
            let rate = named.clone().rev().find(|it| is(served, &it.0));
            Method::new(rate.map_or(self.rates.others, |it| it.1))
        });
        let _ = self.methods.set(methods.collect());
        Ok(())
    }

    /// Counts a call. If it is to be logged, returns how many calls it stands for.
    #[inline]
    pub(super) fn count(self: &Arc<Self>, method: Option<usize>) -> Option<u32> {
        let method = method?;
        let methods = self.methods.get()?;
        let one_in = match methods.get(method)?.one_in {
            0 => return None,
            1 => return Some(1),
            one_in => one_in,
        };
        // A thread that ends counts no more.
        let is_due = COUNTERS.try_with(|all| {
            let mut all = all.borrow_mut();
            let place = all
                .iter()
                .position(|it| it.of.as_ptr() == Arc::as_ptr(self));
            let place = place.unwrap_or_else(|| self.enter(&mut all, methods));
            let count = &mut all[place].counts[method];
            if *count == NEW {
                *count = methods[method].left.swap(0, Ordering::Relaxed);
            }
            *count += 1;
            let is_due = *count >= u64::from(one_in);
            if is_due {
                *count -= u64::from(one_in);
            }
            is_due
        });
        is_due.unwrap_or_default().then_some(one_in)
    }

    #[cold]
    fn enter(self: &Arc<Self>, all: &mut Vec<Counters>, methods: &[Method]) -> usize {
        // Those of servers that are gone.
        all.retain(|it| it.of.strong_count() > 0);
        all.push(Counters {
            of: Arc::downgrade(self),
            counts: vec![NEW; methods.len()].into(),
        });
        all.len() - 1
    }
}

impl Method {
    fn new(one_in: u32) -> Method {
        Method {
            one_in,
            left: AtomicU64::new(u64::from(one_in).saturating_sub(1)),
        }
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        let sampler = self.of.upgrade();
        let methods = sampler.as_ref().and_then(|it| it.methods.get());
        for (method, count) in methods.into_iter().flatten().zip(&self.counts) {
            if *count != NEW {
                // A number, by which nothing else is read.
                method.left.fetch_add(*count, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// With methods of these rates.
    fn sampler(rates: &[u32]) -> Arc<Sampler> {
        let sampler = Sampler::new(Rates::new(0));
        let methods = rates.iter().map(|it| Method::new(*it)).collect();
        assert!(sampler.methods.set(methods).is_ok());
        sampler
    }

    fn logged(sampler: &Arc<Sampler>, method: usize, calls: usize) -> usize {
        (0..calls)
            .filter(|_| sampler.count(Some(method)).is_some())
            .count()
    }

    #[test]
    fn of_each_method_the_first_is_logged_and_then_each_nth() {
        let sampler = sampler(&[10, 1, 0, 7]);
        let first: Vec<bool> = (0..12).map(|_| sampler.count(Some(0)).is_some()).collect();
        let expected: Vec<bool> = (0..12).map(|it| it % 10 == 0).collect();
        assert_eq!(first, expected);
        assert_eq!(logged(&sampler, 0, 988), 98);
        assert_eq!(logged(&sampler, 1, 50), 50);
        assert_eq!(logged(&sampler, 2, 50), 0);
        assert_eq!(logged(&sampler, 3, 1), 1);
        assert_eq!(sampler.count(None), None);
        assert_eq!(sampler.count(Some(4)), None);
    }

    #[test]
    fn methods_that_are_called_in_turn_both_have_their_share() {
        let sampler = sampler(&[10, 10]);
        let mut counts = [0; 2];
        for call in 0..1000 {
            counts[call % 2] += logged(&sampler, call % 2, 1);
        }
        assert_eq!(counts, [50, 50]);
    }

    #[test]
    fn threads_that_come_and_go_lose_no_count() {
        let sampler = sampler(&[10]);
        // None of them comes to ten calls.
        let all: usize = (0..100)
            .map(|_| {
                let sampler = Arc::clone(&sampler);
                thread::spawn(move || logged(&sampler, 0, 7))
                    .join()
                    .unwrap()
            })
            .sum();
        assert_eq!(all, 70);
    }

    #[test]
    fn threads_side_by_side_keep_back_less_than_one_line_each() {
        let sampler = sampler(&[10]);
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let sampler = Arc::clone(&sampler);
                thread::spawn(move || logged(&sampler, 0, 999))
            })
            .collect();
        let all: usize = threads.into_iter().map(|it| it.join().unwrap()).sum();
        // 7,992 calls, and nine that were there from the beginning.
        assert!((8 * 99..=800).contains(&all), "{all}");
        let rest = sampler.methods.get().unwrap()[0]
            .left
            .load(Ordering::Relaxed);
        assert_eq!(all as u64 * 10 + rest, 8 * 999 + 9);
    }

    #[test]
    fn a_thread_forgets_the_samplers_that_are_gone() {
        for _ in 0..10 {
            assert_eq!(logged(&sampler(&[2]), 0, 4), 2);
        }
        COUNTERS.with(|it| assert!(it.borrow().len() <= 2));
    }
}
