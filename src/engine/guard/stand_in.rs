//! What C-core gets for a message for which there is no room: another one, of what its first frame has, with a
//! seal in the place of the last bytes. So the call fails like every call with a message that is too long, and nothing of the
//! message is waited for. The seal is followed by the message's length, or by 0 if it is not too long by itself. There is no byte more than the client has sent, or C-core would count more than it has allowed.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::OnceLock;

/// How many bytes stand at the end: the seal, and the length of the message in its place.
pub(super) const LENGTH: usize = SEAL + 4;
const SEAL: usize = 16;

/// Whether there has been one: as long as there has not, no message need be looked at. Who gets one has got it from
/// C-core, which has it from who has set this, so nothing else pairs with it.
static WAS_MADE: AtomicBool = AtomicBool::new(false);

/// What no client can know, or send by chance.
fn seal() -> [u8; SEAL] {
    static SEALS: OnceLock<[u8; SEAL]> = OnceLock::new();
    *SEALS.get_or_init(|| {
        let mut seal = [0; SEAL];
        let random = RandomState::new();
        seal[..8].copy_from_slice(&random.hash_one(0).to_le_bytes());
        seal[8..].copy_from_slice(&random.hash_one(1).to_le_bytes());
        seal
    })
}

/// The last bytes of the message that stands for one of this length.
pub(super) fn end(length: u32) -> [u8; LENGTH] {
    WAS_MADE.store(true, Ordering::Relaxed);
    let mut end = [0; LENGTH];
    end[..SEAL].copy_from_slice(&seal());
    end[SEAL..].copy_from_slice(&length.to_be_bytes());
    end
}

/// The length of the message for which one of these pieces stands; `None` if it stands for itself.
#[inline]
pub(in super::super) fn stands_for<'a>(
    pieces: impl DoubleEndedIterator<Item = &'a [u8]>,
) -> Option<usize> {
    if !WAS_MADE.load(Ordering::Relaxed) {
        return None;
    }
    let mut end = [0; LENGTH];
    let bytes = pieces.rev().flat_map(|it| it.iter().rev());
    let mut count = 0;
    for (room, byte) in end.iter_mut().rev().zip(bytes) {
        *room = *byte;
        count += 1;
    }
    let (sealed, length) = end.split_first_chunk::<SEAL>()?;
    let is_one = count == LENGTH && *sealed == seal();
    is_one.then(|| u32::from_be_bytes(length.try_into().unwrap_or_default()) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_a_message_says_for_which() {
        let message = [b"begin", &end(300 << 20)[..]].concat();
        for cut in 0..message.len() {
            let (start, end) = message.split_at(cut);
            assert_eq!(stands_for([start, end].into_iter()), Some(300 << 20));
        }
        for other in [&message[..message.len() - 1], &message[6..], b"", b"x"] {
            assert_eq!(stands_for([other].into_iter()), None);
        }
    }
}
