//! How much of something a client may do at once, and over time.

/// A token bucket: so much at once, and so much a second. It is full at first.
pub(super) struct Bucket {
    /// In millionths.
    left: i64,
    /// When something was last taken, in milliseconds.
    at: u64,
    most: i64,
    /// How many thousandths come back in a second.
    back: i64,
}

const MILLION: i64 = 1_000_000;

impl Bucket {
    /// `at_once`, and `back` thousandths a second.
    pub(super) fn new(at_once: u32, back: u32) -> Bucket {
        let most = i64::from(at_once) * MILLION;
        Bucket {
            left: most,
            at: 0,
            most,
            back: back.into(),
        }
    }

    /// Takes so much. Returns whether it was there; if not, what was is gone all the same.
    pub(super) fn take(&mut self, count: u32, now: u64) -> bool {
        let passed = i64::try_from(now.saturating_sub(self.at)).unwrap_or(i64::MAX);
        // A millisecond brings back as many millionths as a second brings thousandths.
        let back = passed.saturating_mul(self.back);
        self.left = self.left.saturating_add(back).min(self.most);
        self.at = self.at.max(now);
        let wanted = i64::from(count) * MILLION;
        let is_there = wanted <= self.left;
        self.left = (self.left - wanted).max(0);
        is_there
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_taken_comes_back_with_time() {
        let mut bucket = Bucket::new(10, 200);
        assert!(bucket.take(10, 0));
        assert!(!bucket.take(1, 4_999));
        // The rest of it came back, too, and was taken by who asked for more.
        assert!(!bucket.take(1, 9_998));
        assert!(bucket.take(1, 15_000));
        assert!(!bucket.take(11, 1_000_000_000));
    }

    proptest! {
        /// Whatever is asked for and when, no more is given than was there and came back.
        #[test]
        fn no_more_is_given_than_there_is(asked in prop::collection::vec((0u32..50, 0u64..2_000), 0..200)) {
            let mut bucket = Bucket::new(100, 5_000);
            let (mut now, mut given) = (0, 0);
            for (count, passed) in asked {
                now += passed;
                if bucket.take(count, now) {
                    given += u64::from(count);
                }
            }
            prop_assert!(given * 1000 <= 100 * 1000 + now * 5, "{given} within {now} ms");
        }
    }
}
