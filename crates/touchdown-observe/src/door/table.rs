//! Who is connected, and who makes room for whom.

use std::time::Instant;

use super::client::{Answering, Client, Duplex};
use super::{HEAD_LIMIT, MOST_CLIENTS, MOST_PENDING};

/// All clients.
pub(super) struct Table<S> {
    clients: Vec<Client<S>>,
    /// What is read goes through here.
    buffer: Box<[u8]>,
}

impl<S: Duplex> Table<S> {
    pub(super) fn new() -> Table<S> {
        Table {
            clients: Vec::new(),
            buffer: vec![0; HEAD_LIMIT].into_boxed_slice(),
        }
    }

    /// The sockets of all, and of each whether it is to be written to.
    pub(super) fn sockets(&self) -> impl Iterator<Item = (&S, bool)> {
        self.clients.iter().map(|it| (it.socket(), it.writes()))
    }

    /// When somebody's patience is over next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.clients.iter().map(Client::deadline).min()
    }

    /// Goes on with those that are ready, in the order of [`sockets`](Self::sockets), and ends with those whose time
    /// is over.
    pub(super) fn advance(&mut self, ready: &[bool], now: Instant, answering: &mut Answering<'_>) {
        debug_assert_eq!(ready.len(), self.clients.len());
        let mut ready = ready.iter();
        let buffer = &mut self.buffer;
        self.clients.retain_mut(|client| {
            let is_ready = ready.next().is_some_and(|it| *it);
            let advanced = match is_ready {
                true => client.advance(now, buffer, answering),
                false => Ok(()),
            };
            advanced
                .and_then(|()| match now >= client.deadline() {
                    true => client.expire(now),
                    false => Ok(()),
                })
                .is_ok()
        });
        self.limit_pending();
    }

    /// Takes in a client, and goes as far with it as possible. If there are enough, another one makes room.
    pub(super) fn admit(&mut self, socket: S, now: Instant, answering: &mut Answering<'_>) {
        if self.clients.len() >= MOST_CLIENTS {
            self.remove_first(|_| true);
        }
        let mut client = Client::new(socket, now);
        // Most have sent their request by now.
        if client.advance(now, &mut self.buffer, answering).is_ok() {
            self.clients.push(client);
            self.limit_pending();
        }
    }

    /// Drops those that have nothing to be written. Says whether some are left.
    pub(super) fn keep_pending(&mut self) -> bool {
        self.clients.retain(|it| it.pending() > 0);
        !self.clients.is_empty()
    }

    /// Writes what is pending.
    pub(super) fn write_pending(&mut self, now: Instant) {
        self.clients.retain_mut(|it| it.write(now).is_ok());
    }

    /// Memory is scarcer than patience: answers that are not read are not kept without end. One may be of any size.
    fn limit_pending(&mut self) {
        let pending = |it: &Self| -> Vec<usize> {
            let all = it.clients.iter().map(Client::pending);
            all.filter(|it| *it > 0).collect()
        };
        let mut all = pending(self);
        while all.len() > 1 && all.iter().sum::<usize>() > MOST_PENDING {
            self.remove_first(|it| it.pending() > 0);
            all = pending(self);
        }
    }

    /// Removes the first that makes room, of those of this kind.
    fn remove_first(&mut self, is_of_kind: impl Fn(&Client<S>) -> bool) {
        let clients = self.clients.iter().enumerate();
        let first = clients
            .filter(|it| is_of_kind(it.1))
            .min_by_key(|it| it.1.rank());
        if let Some((index, _)) = first {
            self.clients.remove(index);
        }
    }
}
