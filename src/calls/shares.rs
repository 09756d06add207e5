//! What one connection may have of something of which all together may have so much.
//!
//! Up to the limit nobody is asked: one connection may have it all, as long as nobody else wants any. Beyond it there
//! is as much again, and of that each connection may have half of what is left. So who has taken the most is refused
//! first, and who comes with little finds room still, however many have come before.
//!
//! What is written here decides from what it is given.

/// What a connection may have in any case. A client that probes or makes one call after the other has one or two open, and
/// what a few cost is bounded by the number of connections.
const ALWAYS: usize = 4;

/// Whether a connection that has `own`, the new one included, has more than its share. All have `all` of `limit`.
pub(super) fn is_over_share(own: usize, all: usize, limit: usize) -> bool {
    let left = limit.saturating_mul(2).saturating_sub(all);
    all > limit && own > ALWAYS.max(left / 2)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nobody_is_refused_up_to_the_limit() {
        assert!(!is_over_share(100, 100, 100));
        assert!(is_over_share(101, 101, 100));
        assert!(!is_over_share(ALWAYS, 1_000_000, 100));
    }

    #[test]
    fn a_newcomer_finds_room_beside_two_that_take_all_they_can() {
        let mut taken = [0; 3];
        for number in 0..3 {
            for _ in 0..990 {
                let all = taken.iter().sum::<usize>() + 1;
                if is_over_share(taken[number] + 1, all, 1040) {
                    break;
                }
                taken[number] += 1;
            }
        }
        assert_eq!(taken[0], 990);
        assert!(taken[1] > 100 && taken[2] > 100, "{taken:?}");
    }

    proptest! {
        /// However they come, all together never have more than twice the limit and a few for each connection.
        #[test]
        fn the_sum_is_bounded_and_who_has_few_is_never_refused(
            limit in 0..200_usize,
            comers in vec(0..10_usize, 0..2000),
        ) {
            let mut taken = [0_usize; 10];
            for comer in comers {
                let all = taken.iter().sum::<usize>() + 1;
                let own = taken[comer] + 1;
                match is_over_share(own, all, limit) {
                    true => prop_assert!(own > ALWAYS && all > limit),
                    false => taken[comer] = own,
                }
            }
            prop_assert!(taken.iter().sum::<usize>() <= 2 * limit + ALWAYS * taken.len());
        }
    }
}
