//! The broadcast: a tree of tokens, each of which can be cancelled once.
//!
//! A [`Token`] tells any number of threads that something is over. Who looks at it cannot cancel it: that is
//! the right of its [`Canceller`], which stays with whoever decides. Cancelling reaches the descendants and nobody
//! else, so the part that ends a program keeps the canceller of the root, each part has a child, and each call a
//! grandchild.
//!
//! # Tokens vs flags vs channels
//!
//! A flag (`AtomicBool`) can be looked at but not waited for. A channel can be waited for, but a
//! message reaches one receiver, and every waiting thread costs a channel from the start. A token
//! is a flag until somebody waits: looking at it is one atomic load, and the channel behind
//! [`Token::receiver`] is made when it is first asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::time::Duration;

use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{
    bounded, Arc, Instant, Mutex, OnceLock, Receiver, RecvTimeoutError, Sender, Weak,
};

/// What a token's channel carries: nothing, ever. The channel only disconnects.
#[derive(Clone, Copy, Debug)]
pub enum Never {}

/// A look at one node of the tree: whether it was cancelled. Clones are the same token.
///
/// A token lives as long as a handle on it, or on any of its descendants. Dropping handles cancels
/// nothing.
///
/// ```
/// use std::thread;
/// use std::time::Duration;
/// use touchdown::lifecycle::{Canceller, Token};
///
/// /// Works until it is told to stop. It may look and wait, but not cancel.
/// fn poll(token: &Token) -> u32 {
///     let mut rounds = 0;
///     while !token.wait_timeout(Duration::from_millis(1)) {
///         rounds += 1;
///     }
///     rounds
/// }
///
/// let canceller = Canceller::new();
/// let token = canceller.token();
/// let poller = thread::spawn(move || poll(&token));
/// canceller.cancel();
/// poller.join().unwrap();
/// ```
#[derive(Clone)]
pub struct Token {
    node: Arc<Node>,
}

/// The right to cancel a [`Token`], and to look at it: a canceller can be used as a `&Token`. Clones are of the
/// same token. Dropping them cancels nothing.
///
/// ```
/// use touchdown::lifecycle::Canceller;
///
/// let server = Canceller::new();
/// // Whoever holds the token of a server may make children of it, and cancel those.
/// let (one, other) = (server.token().child(), server.token().child());
/// one.cancel();
/// assert!(one.is_cancelled() && !other.is_cancelled() && !server.is_cancelled());
/// server.cancel();
/// assert!(other.is_cancelled());
/// ```
#[derive(Clone)]
pub struct Canceller {
    token: Token,
}

struct Node {
    /// Written under `links`, read without it. The Release in `Node::cancel` pairs with the
    /// Acquire in `Token::is_cancelled`: a thread that sees the cancellation sees what led to it.
    cancelled: AtomicBool,
    /// Made by the first thread that waits. `links` holds the sender until the token is cancelled.
    receiver: OnceLock<Receiver<Never>>,
    /// Never held while waking anybody, nor while another node's is taken.
    links: Mutex<Links>,
    /// The way up, and the key of this node there. Strong, so that a grandparent still reaches
    /// its grandchildren when the handles on the parent are gone. None for a root, and for a
    /// child of a token that was cancelled already.
    parent: Option<(Arc<Node>, u64)>,
}

#[derive(Default)]
struct Links {
    /// Weak: a child takes itself out when it is dropped.
    children: BTreeMap<u64, Weak<Node>>,
    next_key: u64,
    /// Dropping this disconnects the channel and so wakes all who wait.
    sender: Option<Sender<Never>>,
}

impl Token {
    /// A new child, cancelled when this token is, or by the returned canceller. The child of a cancelled token is
    /// cancelled.
    ///
    /// A child that is dropped leaves nothing behind in its parent, so a token may have children
    /// by the million, one after another.
    #[must_use]
    pub fn child(&self) -> Canceller {
        // `cancel` sets the flag under this lock, so a child is either in the map when `cancel`
        // takes it, or sees the flag here.
        let mut links = self.node.links.lock();
        if self.is_cancelled() {
            return Canceller::of(Arc::new(Node::new(true, None)));
        }
        let key = links.next_key;
        links.next_key += 1;
        let node = Arc::new(Node::new(false, Some((Arc::clone(&self.node), key))));
        links.children.insert(key, Arc::downgrade(&node));
        Canceller::of(node)
    }

    /// Whether the token was cancelled. One atomic load.
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        // Pairs with the Release in `Node::cancel`.
        self.node.cancelled.load(Ordering::Acquire)
    }

    /// Blocks until the token is cancelled.
    pub fn wait(&self) {
        if !self.is_cancelled() {
            // A channel of `Never` gives nothing but the news that it is disconnected.
            let _ = self.receiver().recv();
        }
    }

    /// Blocks until the token is cancelled or `time` is over. Returns whether it was cancelled.
    pub fn wait_timeout(&self, time: Duration) -> bool {
        self.is_cancelled()
            || matches!(
                self.receiver().recv_timeout(time),
                Err(RecvTimeoutError::Disconnected)
            )
    }

    /// Blocks until the token is cancelled or `deadline` has passed. Returns whether it was
    /// cancelled.
    pub fn wait_deadline(&self, deadline: Instant) -> bool {
        self.is_cancelled()
            || matches!(
                self.receiver().recv_deadline(deadline),
                Err(RecvTimeoutError::Disconnected)
            )
    }

    /// A channel that disconnects when the token is cancelled, to wait beside other channels. It is one of
    /// crossbeam-channel 0.5.
    ///
    /// ```
    /// use crossbeam_channel::{select, unbounded};
    /// use touchdown::lifecycle::Canceller;
    ///
    /// let (canceller, (_sender, jobs)) = (Canceller::new(), unbounded::<u32>());
    /// let token = canceller.token();
    /// canceller.cancel();
    /// select! {
    ///     recv(jobs) -> job => unreachable!("got {job:?}"),
    ///     recv(token.receiver()) -> _ => println!("no more jobs"),
    /// }
    /// ```
    pub fn receiver(&self) -> &Receiver<Never> {
        self.node.receiver.get_or_init(|| {
            let (sender, receiver) = bounded(0);
            let mut links = self.node.links.lock();
            // `cancel` sets the flag under this lock: either it takes the sender out, or the flag
            // is seen here and the sender dropped at once.
            if !self.is_cancelled() {
                links.sender = Some(sender);
            }
            receiver
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

impl Canceller {
    /// A new tree of one token, not cancelled.
    pub fn new() -> Self {
        Self::of(Arc::new(Node::new(false, None)))
    }

    fn of(node: Arc<Node>) -> Self {
        Self {
            token: Token { node },
        }
    }

    /// The token, for those who only look.
    pub fn token(&self) -> Token {
        self.token.clone()
    }

    /// Cancels the token and its descendants, and wakes all who wait for them. The second time it
    /// does nothing.
    ///
    /// Does not block, apart from short internal locks that are never held while waking. When the
    /// first call returns, all descendants are cancelled; a call that came second may return
    /// earlier.
    pub fn cancel(&self) {
        // A list instead of recursion: a chain may be deeper than the stack.
        let mut pending = vec![Arc::clone(&self.token.node)];
        while let Some(node) = pending.pop() {
            pending.extend(
                node.cancel()
                    .into_values()
                    .filter_map(|child| child.upgrade()),
            );
        }
    }
}

impl Deref for Canceller {
    type Target = Token;

    fn deref(&self) -> &Token {
        &self.token
    }
}

impl Default for Canceller {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller")
            .field("cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

impl Node {
    fn new(cancelled: bool, parent: Option<(Arc<Node>, u64)>) -> Self {
        Self {
            cancelled: AtomicBool::new(cancelled),
            receiver: OnceLock::new(),
            links: Mutex::default(),
            parent,
        }
    }

    /// Cancels this node alone, and hands over its children. None the second time.
    fn cancel(&self) -> BTreeMap<u64, Weak<Node>> {
        let (children, sender) = {
            let mut links = self.links.lock();
            // Pairs with the Acquire in `Token::is_cancelled`.
            self.cancelled.store(true, Ordering::Release);
            (mem::take(&mut links.children), links.sender.take())
        };
        // Wakes the waiting threads, with the lock released.
        drop(sender);
        children
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // A loop instead of recursion: the last handle on the end of a chain takes the whole
        // chain with it, and that may be deeper than the stack.
        let mut link = self.parent.take();
        while let Some((parent, key)) = link {
            let own_entry = parent.links.lock().children.remove(&key);
            drop(own_entry);
            link = Arc::into_inner(parent).and_then(|mut node| node.parent.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_child_leaves_nothing_in_its_parent() {
        let parent = Canceller::new();
        let kept = parent.child();
        for _ in 0..100 {
            let child = parent.child();
            drop((child.child(), child.clone(), child));
        }
        assert_eq!(parent.node.links.lock().children.len(), 1);
        drop(kept);
        assert!(parent.node.links.lock().children.is_empty());
    }

    #[test]
    fn there_is_no_channel_until_somebody_waits() {
        let token = Canceller::new();
        token.child().cancel();
        assert!(!token.is_cancelled());
        assert!(token.node.receiver.get().is_none());
        assert!(!token.wait_timeout(Duration::ZERO));
        assert!(token.node.receiver.get().is_some());
    }

    #[test]
    fn waiting_for_a_cancelled_token_makes_no_channel() {
        let token = Canceller::new();
        token.cancel();
        token.wait();
        assert!(token.wait_timeout(Duration::ZERO) && token.wait_deadline(Instant::now()));
        assert!(token.node.receiver.get().is_none());
    }
}
