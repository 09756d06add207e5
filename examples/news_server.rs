//! Streams that outlive their handlers: one thread for any number of subscribers.
//!
//!     cargo run --example news_server -- 127.0.0.1:50051

touchdown::include_protos!();

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use news::{news_service, Item, News, Subscription};
use touchdown::lifecycle::{Lifecycle, Report, Signals};
use touchdown::{Call, DetachedReplies, Replies, SendError, Server, Status};

const USAGE: &str = "usage: news_server [ADDRESS]

ADDRESS is HOST:PORT or unix:PATH; 127.0.0.1:50051 without it.";

/// `None` once the last item has been published.
type Subscribers = Option<Vec<DetachedReplies<Item>>>;

#[derive(Clone)]
struct Desk {
    subscribers: Arc<Mutex<Subscribers>>,
}

impl News for Desk {
    fn subscribe(&self, _: &Call, _: Subscription, replies: Replies<Item>) -> Result<(), Status> {
        match self.subscribers.lock().unwrap().as_mut() {
            // The worker is free again; `publish` goes on with this stream.
            Some(subscribers) => subscribers.push(replies.detach()),
            None => return Err(Status::unavailable("there will be no more news")),
        }
        Ok(())
    }
}

impl Desk {
    /// An item a second for everybody, until the program stops.
    fn publish(&self, lifecycle: &Lifecycle) {
        for number in 1.. {
            let stopping = lifecycle.stopping().wait_timeout(Duration::from_secs(1));
            let mut subscribers = self.subscribers.lock().unwrap();
            if stopping {
                return subscribers
                    .take()
                    .into_iter()
                    .flatten()
                    .for_each(|it| it.finish(Ok(())));
            }
            let subscribers = subscribers.as_mut().expect("only this thread takes them");
            let item = Item {
                number,
                text: format!("{} are listening", subscribers.len()),
                ..Default::default()
            };
            // A slow subscriber misses an item; one that has left is struck off.
            subscribers.retain(|it| !matches!(it.try_send(&item), Err(SendError::Ended(_))));
        }
    }
}

/// Says how the program is called: because it is asked, or because it was called otherwise.
fn usage(arguments: &[String]) -> ! {
    if arguments.iter().any(|it| it == "--help") {
        println!("{USAGE}");
        std::process::exit(0);
    }
    eprintln!("{USAGE}");
    std::process::exit(2);
}

fn main() -> Result<Report, Box<dyn std::error::Error>> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let address = match arguments.as_slice() {
        [] => "127.0.0.1:50051",
        [address] if !address.starts_with('-') => address,
        _ => usage(&arguments),
    };

    let lifecycle = Lifecycle::builder().signals(Signals::process()).build()?;
    let subscribers = Arc::new(Mutex::new(Some(Vec::new())));
    let desk = Desk { subscribers };
    let builder = Server::builder()
        .address(address)
        .service(news_service(desk.clone()));
    let server = match builder.start_with(&lifecycle) {
        Ok(server) => server,
        Err(error) => {
            // Changes nothing if a signal has begun the stop already.
            lifecycle.fail(error);
            return Ok(lifecycle.wait());
        }
    };
    println!("listening at {}", server.address());
    // Refused if a signal has begun the stop already; then there is nothing to do but wait for it.
    let _ = lifecycle.ready();

    let publisher = thread::spawn({
        let lifecycle = lifecycle.clone();
        move || desk.publish(&lifecycle)
    });
    let report = server.wait();
    publisher.join().expect("publishing does not panic");
    Ok(report)
}
