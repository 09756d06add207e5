//! The same items for any number of subscribers, on streams that need no thread each.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use touchdown::{Call, DetachedReplies, Replies, Service, Status, TrySendError};

use crate::protos::feed::{feed_service, Feed, Item, Subscription};

/// Has the subscribers. A clone has the same.
#[derive(Clone, Default)]
pub struct Publisher {
    subscribers: Arc<Mutex<Vec<Subscriber>>>,
}

struct Subscriber {
    replies: DetachedReplies<Item>,
    missed: u64,
}

/// What became of one item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// How many took it.
    pub sent: usize,
    /// How many were too slow for it.
    pub missed: usize,
    /// How many had left, and are struck off.
    pub left: usize,
}

impl Publisher {
    /// The service to be served.
    pub fn service(&self) -> Service {
        feed_service(self.clone())
    }

    /// How many subscribers there are; those who have left unseen are among them.
    pub fn subscribers(&self) -> usize {
        self.subscribers.lock().unwrap().len()
    }

    /// Sends an item to everybody, and waits for nobody.
    pub fn publish(&self, number: u64, padding: usize) -> Published {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let item = Item {
            number,
            made_unix_ns: now.map_or(0, |it| it.as_nanos() as u64),
            padding: vec![0; padding],
            ..Default::default()
        };
        let mut published = Published::default();
        self.subscribers
            .lock()
            .unwrap()
            .retain_mut(|it| match it.replies.try_send(&item) {
                Ok(()) => {
                    published.sent += 1;
                    true
                }
                Err(TrySendError::Full) => {
                    published.missed += 1;
                    it.missed += 1;
                    true
                }
                Err(_) => {
                    published.left += 1;
                    false
                }
            });
        published
    }

    /// How many subscribers have missed an item or more.
    pub fn slow(&self) -> usize {
        let subscribers = self.subscribers.lock().unwrap();
        subscribers.iter().filter(|it| it.missed > 0).count()
    }

    /// Ends every stream.
    pub fn finish(&self) {
        for subscriber in std::mem::take(&mut *self.subscribers.lock().unwrap()) {
            subscriber.replies.finish(Ok(()));
        }
    }
}

impl Feed for Publisher {
    fn subscribe(&self, _: &Call, _: Subscription, replies: Replies<Item>) -> Result<(), Status> {
        self.subscribers.lock().unwrap().push(Subscriber {
            replies: replies.detach(),
            missed: 0,
        });
        Ok(())
    }
}
