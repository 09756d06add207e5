//! The numbers that traces and spans are known by, and where new ones come from.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

/// The number of a trace: 16 bytes, not all of them zero. It is shown as 32 digits of lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// The number of a span in its trace: 8 bytes, not all of them zero. It is shown as 16 digits of lower-case
/// hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// `None` if all bytes are zero: no trace has that number.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<TraceId> {
        (bytes != [0; 16]).then_some(TraceId(bytes))
    }

    /// The bytes, in the order in which the digits stand.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The seven bytes that stand right: those that [are
    /// random](https://www.w3.org/TR/trace-context-2/#random-trace-id-flag), and by which it is decided what is
    /// sampled.
    pub(super) fn randomness(self) -> u64 {
        let low = u128::from_be_bytes(self.0) as u64;
        low & RANDOMNESS
    }

    /// A new one with this randomness.
    pub(super) fn random_with(randomness: u64) -> TraceId {
        let (high, low) = (next(), next());
        let low = low & !RANDOMNESS | randomness & RANDOMNESS;
        let id = u128::from(high) << 64 | u128::from(low);
        // Once in 2^72 or less often.
        TraceId(id.max(1).to_be_bytes())
    }
}

impl SpanId {
    /// `None` if all bytes are zero: no span has that number.
    pub fn from_bytes(bytes: [u8; 8]) -> Option<SpanId> {
        (bytes != [0; 8]).then_some(SpanId(bytes))
    }

    /// The bytes, in the order in which the digits stand.
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0
    }

    /// A new one.
    pub(super) fn random() -> SpanId {
        SpanId(next().max(1).to_be_bytes())
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// The bits that [`TraceId::randomness`] has.
pub(super) const RANDOMNESS: u64 = (1 << 56) - 1;

/// The next random number of this thread: xoroshiro128++ of Blackman and Vigna, whose 128 bits of state begin as std's
/// [`RandomState`] does, which the system's generator seeds. Nobody must rely on it to keep a secret.
pub(super) fn next() -> u64 {
    thread_local! {
        static STATE: Cell<[u64; 2]> = Cell::new(seed());
    }
    // A thread that ends and has dropped it already is seeded for each number.
    let draw = |state: &Cell<[u64; 2]>| {
        let (number, next) = step(state.get());
        state.set(next);
        number
    };
    STATE.try_with(draw).unwrap_or_else(|_| step(seed()).0)
}

fn seed() -> [u64; 2] {
    let random = || RandomState::new().hash_one(0);
    let state = [random(), random()];
    match state {
        // From here it would never leave.
        [0, 0] => [1, 0],
        state => state,
    }
}

fn step([mut a, mut b]: [u64; 2]) -> (u64, [u64; 2]) {
    let number = a.wrapping_add(b).rotate_left(17).wrapping_add(a);
    b ^= a;
    a = a.rotate_left(49) ^ b ^ (b << 21);
    (number, [a, b.rotate_left(28)])
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        // From the authors' C code, with the state 1, 2.
        let mut state = [1, 2];
        let mut numbers = Vec::new();
        for _ in 0..3 {
            let (number, next) = step(state);
            numbers.push(number);
            state = next;
        }
        assert_eq!(
            numbers,
            [393_217, 669_327_710_093_319, 1_732_421_326_133_921_491]
        );
    }

    #[test]
    fn no_two_threads_draw_the_same() {
        let draw = || (0..1000).map(|_| next()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..8).map(|_| thread::spawn(draw)).collect();
        let numbers = threads.into_iter().flat_map(|it| it.join().unwrap());
        assert_eq!(numbers.collect::<HashSet<_>>().len(), 8000);
    }

    #[test]
    fn the_randomness_of_an_id_is_what_it_was_made_with() {
        for randomness in [0, 1, RANDOMNESS / 3, RANDOMNESS] {
            let id = TraceId::random_with(randomness);
            assert_eq!(id.randomness(), randomness);
        }
        let digits = "0123456789abcdef00ffffffffffffff";
        let id = TraceId::from_bytes(u128::from_str_radix(digits, 16).unwrap().to_be_bytes());
        let id = id.unwrap();
        assert_eq!(
            (id.randomness(), id.to_string()),
            (RANDOMNESS, digits.to_owned())
        );
    }
}
