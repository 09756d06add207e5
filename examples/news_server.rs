//! News for any number of subscribers: none of them needs a thread, and a slow one misses items.
//!
//!     cargo run --example news_server -- 127.0.0.1:50051

touchdown::include_protos!();

use std::thread;
use std::time::Duration;

use news::{news_service, Item, News, Subscription};
use touchdown::lifecycle::Report;
use touchdown::{Broadcast, Call, Replies, Server, SlowSubscriber, Status};

struct Desk(Broadcast<Item>);

impl News for Desk {
    fn subscribe(&self, _: &Call, _: Subscription, replies: Replies<Item>) -> Result<(), Status> {
        self.0.subscribe(replies)
    }
}

/// An item a second for everybody, for as long as the program runs.
fn publish(news: &Broadcast<Item>) {
    for number in 1.. {
        thread::sleep(Duration::from_secs(1));
        let item = Item {
            number,
            text: format!("{} are listening", news.subscribers()),
            ..Default::default()
        };
        news.publish(&item).expect("an item can be encoded");
    }
}

fn main() -> Report {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let address = std::env::args().nth(1);
    let news = Broadcast::new(16, SlowSubscriber::DropOldest);
    thread::spawn({
        let news = news.clone();
        move || publish(&news)
    });
    // As the server drains, the subscribers are sent what waits for them, and then told that it goes.
    Server::builder()
        .address(address.as_deref().unwrap_or("127.0.0.1:50051"))
        .service(news_service(Desk(news)))
        .serve()
}
