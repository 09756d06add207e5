//! What all threads have counted, added up.

use std::sync::Arc;

use super::names::{type_of, REFUSALS};
use super::shard::{Shard, TimesSum};
use super::{Inner, MethodSums};

/// Of all methods together.
#[derive(Default)]
pub(super) struct CommonSums {
    pub(super) waited: TimesSum,
    pub(super) refused: [u64; REFUSALS.len()],
    pub(super) abandoned: u64,
    pub(super) caller_left: u64,
    pub(super) undelivered: u64,
}

impl Inner {
    /// In the order of the server's list, without health's, and last the unknown methods.
    pub(super) fn by_method(&self) -> Vec<MethodSums> {
        let methods = self.methods.get().map_or(&[][..], Vec::as_slice);
        let shards = self.shards.all();
        let known = methods.iter().enumerate().filter(|(_, it)| !it.is_health);
        let known = known.map(|(index, method)| {
            let (service, name) = (method.service, method.name);
            sums(
                &shards,
                index,
                MethodSums {
                    service,
                    name,
                    kind: type_of(method),
                    ..MethodSums::default()
                },
            )
        });
        let other = MethodSums {
            service: "other",
            name: "other",
            kind: "unary",
            ..MethodSums::default()
        };
        let mut all: Vec<_> = known.collect();
        all.push(sums(&shards, methods.len(), other));
        all
    }

    pub(super) fn common(&self) -> CommonSums {
        let mut sums = CommonSums::default();
        for shard in self.shards.all() {
            let common = &shard.common;
            common.waited.add_to(&mut sums.waited);
            for (sum, cell) in sums.refused.iter_mut().zip(&common.refused) {
                *sum += cell.get();
            }
            sums.abandoned += common.abandoned.get();
            sums.caller_left += common.caller_left.get();
            sums.undelivered += common.undelivered.get();
        }
        sums
    }
}

/// Ends are read first: a call that is seen to have ended is then seen to have begun.
fn sums(shards: &[Arc<Shard>], index: usize, mut sums: MethodSums) -> MethodSums {
    let rows = || shards.iter().filter_map(|it| it.seen(index));
    for row in rows() {
        for (sum, cell) in sums.handled.iter_mut().zip(&row.handled) {
            *sum += cell.get();
        }
    }
    for row in rows() {
        sums.started += row.started.get();
        sums.received += row.received.get();
        sums.sent += row.sent.get();
        sums.received_bytes += row.received_bytes.get();
        sums.sent_bytes += row.sent_bytes.get();
        sums.cut += row.cut.get();
        row.times.add_to(&mut sums.times);
    }
    sums
}
