//! What the heap holds that nobody uses, given back also while calls go on.
//!
//! A flood, or many streams that end at once, may leave many times of what a server needs for its other calls, and that may be
//! most of a small machine's memory. To wait for a rest, as [`Keeper`](super::Keeper) does, would be to wait for ever on a server that always
//! has some calls.

use std::time::{Duration, Instant};

/// How often to look after a burst. What is much at two looks is given back, so that what one burst leaves is there for the
/// next if that comes soon.
const LOOK: Duration = Duration::from_secs(2);

/// How many bytes are much: more than a server with its default settings has in use for a thousand small calls.
const MUCH: usize = 16 << 20;

/// Knows when to look, and whether there is too much.
#[derive(Default)]
pub(in crate::calls) struct Excess {
    next_look: Option<Instant>,
    was_much: bool,
    /// What could not be given back the last time: pieces that are smaller than pages, and stacks.
    left: usize,
}

impl Excess {
    /// To be called at the time that it has returned last, and more often. `is_burst` says whether there was a burst of late, and
    /// `measure` how many bytes nobody uses, if that is known. Whether to give memory back, with when to come again.
    pub(in crate::calls) fn is_much(
        &mut self,
        is_burst: bool,
        now: Instant,
        measure: impl FnOnce() -> Option<usize>,
    ) -> (bool, Option<Instant>) {
        match self.next_look {
            None if is_burst => self.next_look = Some(now + LOOK),
            Some(at) if at <= now => {
                let excess = measure().unwrap_or_default();
                let is_much = excess > self.left.saturating_add(MUCH);
                self.left = self.left.min(excess);
                self.next_look = (is_burst || is_much).then_some(now + LOOK);
                let was_much = std::mem::replace(&mut self.was_much, is_much);
                if was_much && is_much {
                    self.was_much = false;
                    return (true, self.next_look);
                }
            }
            _ => {}
        }
        (false, self.next_look)
    }

    /// It was given back, and so much is left.
    pub(in crate::calls) fn given_back(&mut self, excess: Option<usize>) {
        self.left = excess.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_much_at_two_looks_is_given_back_and_what_stays_is_no_reason_to_try_again() {
        let (mut excess, start) = (Excess::default(), Instant::now());
        let at = |looks: u32| start + LOOK * looks;
        let nobody = || panic!("it is not time to look");
        assert_eq!(excess.is_much(false, start, nobody), (false, None));
        assert_eq!(excess.is_much(true, start, nobody), (false, Some(at(1))));
        assert_eq!(excess.is_much(true, start, nobody), (false, Some(at(1))));
        let much = || Some(2 * MUCH);
        assert_eq!(excess.is_much(true, at(1), much), (false, Some(at(2))));
        assert_eq!(excess.is_much(true, at(2), much), (true, Some(at(3))));
        excess.given_back(Some(MUCH / 2));
        // A little more than what is left.
        assert_eq!(
            excess.is_much(true, at(3), || Some(MUCH)),
            (false, Some(at(4)))
        );
        assert_eq!(
            excess.is_much(true, at(4), || Some(MUCH)),
            (false, Some(at(5)))
        );
        // It goes, and comes again.
        assert_eq!(
            excess.is_much(true, at(5), || Some(0)),
            (false, Some(at(6)))
        );
        let much = || Some(MUCH + 1);
        assert_eq!(excess.is_much(false, at(6), much), (false, Some(at(7))));
        assert_eq!(excess.is_much(false, at(7), much), (true, Some(at(8))));
        excess.given_back(Some(0));
        assert_eq!(excess.is_much(false, at(8), || Some(0)), (false, None));
    }

    #[test]
    fn what_is_much_for_a_moment_is_kept_and_where_it_is_not_known_nothing_is_given_back() {
        let (mut excess, start) = (Excess::default(), Instant::now());
        excess.is_much(true, start, || None);
        for look in 1..10 {
            let bytes = if look % 2 == 0 { 0 } else { 2 * MUCH };
            let (is_due, _) = excess.is_much(true, start + LOOK * look, || Some(bytes));
            assert!(!is_due);
        }
        for look in 10..20 {
            assert!(!excess.is_much(true, start + LOOK * look, || None).0);
        }
    }
}
