//! The seats of all workers that a lifecycle knows.

use std::mem;

use super::hook::Hook;
use super::seat::Seat;
use super::shutdown::Canceller;
use super::state::{Shared, Stopping};
use super::worker::Worker;
use crate::sync::Arc;

impl Shared {
    /// Takes up a worker that is going to be spawned.
    pub(super) fn seat(&self, group: &str, worker: &Worker) -> Result<Arc<Seat>, Stopping> {
        let token = match worker.until_closing {
            true => Canceller::new(),
            false => self.draining.child(),
        };
        let seat = Arc::new(Seat::new(group, worker, token));
        // With the lock held from the look to the entry: no stop begins in between.
        let mut control = self.control.lock();
        control.refuse_if_stopping()?;
        control.workers.push(Arc::clone(&seat));
        Ok(seat)
    }

    /// Forgets a worker that has ended, unless the stop has begun: then it is in the report.
    pub(super) fn leave_seat(&self, seat: &Arc<Seat>) {
        let mut control = self.control.lock();
        if control.reason.is_none() {
            control.workers.retain(|other| !Arc::ptr_eq(other, seat));
        }
    }

    /// Forgets a worker that was never started.
    pub(super) fn remove_seat(&self, seat: &Arc<Seat>) {
        let mut control = self.control.lock();
        control.workers.retain(|other| !Arc::ptr_eq(other, seat));
    }

    pub(super) fn seats(&self) -> Vec<Arc<Seat>> {
        self.control.lock().workers.clone()
    }

    /// Lets the drain wait for the workers that were told of it.
    pub(super) fn hold_workers(&self) {
        for seat in self.seats() {
            seat.hold(&self.gate);
        }
    }

    /// The workers that the drain waits for.
    pub(super) fn workers_in_flight(&self) -> Vec<Arc<Seat>> {
        let mut seats = self.seats();
        seats.retain(|seat| seat.is_in_flight());
        seats
    }

    /// Tells all workers to stop. What waits for them are hooks.
    pub(super) fn close_workers(&self) -> Vec<Hook> {
        let seats = mem::take(&mut self.control.lock().workers);
        let told = seats.into_iter().map(|seat| {
            seat.token.cancel();
            let (name, time_limit) = (seat.name.clone(), seat.time_limit);
            Hook::new(name, move || seat.join()).time_limit(time_limit)
        });
        told.collect()
    }
}
