//! Subscribers of a feed: healthy ones, which read every item as it comes, and slow ones, which read nothing
//! until the healthy ones have seen the end.
//!
//! Healthy and slow ones are on connections of their own: what a slow one does not read fills the connection's window,
//! which is this side's doing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::Status;

use crate::protos::feed::feed_client::FeedClient;
use crate::protos::feed::{Item, Subscription};
use crate::Outcome;

/// How many streams share a connection.
const STREAMS: usize = 64;
/// So that a slow subscriber is known to be slow after a few items.
const STREAM_WINDOW: u32 = 16 << 10;
/// Enough for all streams of a connection.
const CONNECTION_WINDOW: u32 = 4 << 20;

/// What one subscriber has seen.
#[derive(Default)]
struct Seen {
    items: usize,
    /// Numbers left out between the first item and the last.
    missed: u64,
    delays: Vec<Duration>,
}

/// `HEALTHY SLOW`: how many there are of each.
pub async fn run(endpoint: Endpoint, arguments: &[String]) -> Outcome {
    let [healthy, slow] = arguments else {
        return Err("usage: subscribe ADDRESS HEALTHY SLOW".into());
    };
    let (finished, end) = watch::channel(());
    let mut readers = JoinSet::new();
    for client in clients(&endpoint, healthy.parse()?).await? {
        readers.spawn(read(client, None));
    }
    let mut idlers = JoinSet::new();
    for client in clients(&endpoint, slow.parse()?).await? {
        idlers.spawn(read(client, Some(end.clone())));
    }
    report("healthy", all(readers).await?);
    drop(finished);
    report("slow", all(idlers).await?);
    Ok(())
}

async fn clients(endpoint: &Endpoint, count: usize) -> Outcome<Vec<FeedClient<Channel>>> {
    let mut clients = Vec::with_capacity(count);
    while clients.len() < count {
        let endpoint = endpoint
            .clone()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let client = FeedClient::new(endpoint.connect().await?);
        let more = STREAMS.min(count - clients.len());
        clients.extend(std::iter::repeat_n(client, more));
    }
    Ok(clients)
}

async fn read(
    mut client: FeedClient<Channel>,
    idle_until: Option<watch::Receiver<()>>,
) -> Result<Seen, Status> {
    let mut items = client.subscribe(Subscription {}).await?.into_inner();
    if let Some(mut end) = idle_until {
        // Returns when the sender is gone.
        let _ = end.changed().await;
    }
    let mut seen = Seen::default();
    let (mut first, mut last) = (None, 0);
    while let Some(Item {
        number,
        made_unix_ns,
        ..
    }) = items.message().await?
    {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        seen.delays
            .push(now.saturating_sub(Duration::from_nanos(made_unix_ns)));
        seen.items += 1;
        first.get_or_insert(number);
        last = number;
    }
    seen.missed = first.map_or(0, |first| last - first + 1 - seen.items as u64);
    Ok(seen)
}

async fn all(mut subscribers: JoinSet<Result<Seen, Status>>) -> Outcome<Vec<Seen>> {
    let mut all = Vec::new();
    while let Some(seen) = subscribers.join_next().await {
        all.push(seen??);
    }
    Ok(all)
}

/// One line for the test that runs this.
fn report(kind: &str, all: Vec<Seen>) {
    let most = all.iter().map(|it| it.items).max().unwrap_or(0);
    let fewest = all.iter().map(|it| it.items).min().unwrap_or(0);
    let missed: u64 = all.iter().map(|it| it.missed).sum();
    let count = all.len();
    let mut delays: Vec<_> = all.into_iter().flat_map(|it| it.delays).collect();
    delays.sort();
    let at = |part: f64| {
        let index = (delays.len() as f64 * part) as usize;
        delays
            .get(index.min(delays.len().saturating_sub(1)))
            .map_or(0, Duration::as_millis)
    };
    println!(
        "{kind} {count} fewest {fewest} most {most} missed {missed} p50_ms {} p99_ms {} max_ms {}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
