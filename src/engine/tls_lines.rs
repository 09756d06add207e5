//! How often the log tells of a peer with which TLS never succeeds: it may come back again and again.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How often the log has a line about one peer: often enough for who looks for it now, and 1,440 lines a day.
const INTERVAL: Duration = Duration::from_secs(60);

/// How many peers are told from each other. All others share one place, so that many of them neither fill the log nor take
/// more memory than some kilobytes.
const PEERS: usize = 64;

/// Which peers the log has told of in the last minute.
pub(super) struct PeerLines(Mutex<Vec<Told>>);

struct Told {
    /// Empty for those that share a place.
    peer: String,
    at: Instant,
    skipped: u32,
}

impl PeerLines {
    pub(super) const fn new() -> PeerLines {
        PeerLines(Mutex::new(Vec::new()))
    }

    /// Whether the log may tell of this peer, whose address is without a port; and how often it was not told of it since the
    /// last line.
    pub(super) fn admits(&self, peer: &str, now: Instant) -> Option<u32> {
        let is_fresh = |it: &Told| now.saturating_duration_since(it.at) < INTERVAL;
        let mut told = self.0.lock();
        let mut index = told.iter().position(|it| it.peer == peer);
        if index.is_none() && told.len() >= PEERS {
            // What was skipped of somebody else is forgotten: that peer has come once in two minutes at the most.
            told.retain(is_fresh);
            if told.len() >= PEERS {
                index = told.iter().position(|it| it.peer.is_empty());
            }
        }
        let Some(index) = index else {
            let peer = match told.len() < PEERS {
                true => peer.to_owned(),
                false => String::new(),
            };
            told.push(Told {
                peer,
                at: now,
                skipped: 0,
            });
            return Some(0);
        };
        let it = &mut told[index];
        if is_fresh(it) {
            it.skipped = it.skipped.saturating_add(1);
            return None;
        }
        it.at = now;
        Some(std::mem::take(&mut it.skipped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_a_line_a_minute() {
        let lines = PeerLines::new();
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(lines.admits("10.0.0.1", at(0)), Some(0));
        for second in 0..60 {
            assert_eq!(lines.admits("10.0.0.1", at(second)), None);
        }
        assert_eq!(lines.admits("10.0.0.2", at(59)), Some(0), "another one");
        assert_eq!(lines.admits("10.0.0.1", at(60)), Some(60));
        assert_eq!(lines.admits("10.0.0.1", at(60)), None);
        assert_eq!(lines.admits("10.0.0.1", at(200)), Some(1));
    }

    #[test]
    fn however_many_peers_come_the_lines_are_few() {
        let lines = PeerLines::new();
        let begin = Instant::now();
        let of_minute = |minute: u64| {
            let now = begin + Duration::from_secs(60 * minute);
            let peers = (0..10_000).map(|it| format!("10.{minute}.{it}"));
            peers.filter_map(|it| lines.admits(&it, now)).count()
        };
        assert_eq!(of_minute(0), PEERS + 1);
        assert_eq!(of_minute(1), PEERS + 1, "those of before are forgotten");
        assert_eq!(lines.0.lock().len(), PEERS + 1);
    }
}
