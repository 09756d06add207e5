//! What traces cost a call, in nanoseconds:
//! `cargo test --release -p touchdown-observe --features otel -- --ignored --nocapture what_traces_cost`

use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use touchdown::client::{CallOptions, Metadata};
use touchdown::protobuf::well_known_types::wrappers::StringValue;
use touchdown::testing::TestServer;
use touchdown::{Call, CallEnd, CallObserver, Server, Service, Status};

use super::counts::SpanCounts;
use super::kept::Kept;
use super::queue::{Limits, Queue};
use super::recorder::Recorder;
use super::sampling::{Cap, Sampler};
use super::{within, CallTrace};

const ROUNDS: u32 = 200_000;

/// Keeps how the last call has ended.
#[derive(Default)]
struct LastEnd(Mutex<Option<CallEnd>>);

impl CallObserver for LastEnd {
    fn ended(&self, _: &Call, end: &CallEnd) {
        *self.0.lock().unwrap() = Some(end.clone());
    }
}

fn recorder(share: f64, cap: u32) -> (Recorder, Arc<Queue>) {
    let limits = Limits {
        capacity: 512,
        batch: 512,
        delay: Duration::from_secs(3600),
    };
    let queue = Arc::new(Queue::new(limits));
    let sampler = Arc::new(Sampler::new(share, true, true));
    (
        Recorder::new(
            sampler,
            Cap::new(cap),
            Arc::clone(&queue),
            SpanCounts::default(),
        ),
        queue,
    )
}

fn measure(what: &str, mut work: impl FnMut()) {
    // The best of some: others had the processor meanwhile.
    let best = (0..5).map(|_| {
        let begun = Instant::now();
        (0..ROUNDS).for_each(|_| work());
        begun.elapsed() / ROUNDS
    });
    println!("{what}: {} ns", best.min().unwrap_or_default().as_nanos());
}

/// From its arrival to its end, as an observer is told.
fn measure_calls(what: &str, call: &Call, end: &CallEnd, share: f64, cap: u32) {
    let (recorder, queue) = recorder(share, cap);
    let mut count = 0;
    measure(what, || {
        recorder.arrived(call);
        recorder.ended(call, end);
        call.extensions().remove::<Kept>();
        count += 1;
        if count == 512 {
            count = 0;
            black_box(queue.next_batch_now());
        }
    });
}

#[test]
#[ignore = "measures, and proves nothing"]
fn what_traces_cost() {
    let last = Arc::new(LastEnd::default());
    let ends = Arc::clone(&last);
    let say = move |call: &Call, request: StringValue| {
        let Some(end) = ends.0.lock().unwrap().clone() else {
            return Ok::<_, Status>(request);
        };
        match &*request.value {
            "" => {
                measure("to take out what was kept", || {
                    drop(call.extensions().remove::<Kept>())
                });
                measure_calls("a root, not sampled", call, &end, 0.0, 100);
                measure_calls("a root, recorded", call, &end, 1.0, u32::MAX);
                measure_calls("a root, beyond the cap", call, &end, 1.0, 0);
                measure("the current call, around nothing", || {
                    within(call, || black_box(()))
                });
                measure("its context, made once", || {
                    drop(black_box(call.trace_context()))
                });
            }
            it => {
                measure_calls(&format!("{it}, none"), call, &end, 0.0, 100);
                measure_calls(&format!("{it}, recorded"), call, &end, 0.0, u32::MAX);
                measure_calls(&format!("{it}, beyond the cap"), call, &end, 0.0, 0);
                measure("its context, read", || {
                    drop(black_box(call.trace_context()))
                });
            }
        }
        Ok(request)
    };
    let service = Service::builder("demo.Echo").unary("Say", say).build();
    let server = TestServer::start(Server::builder().service(service).observer(last)).unwrap();
    let client = server.client();
    let parent = |flags: &str| {
        let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flags}");
        Metadata::new()
            .with("x-request-id", "1")
            .unwrap()
            .with("traceparent", parent)
            .unwrap()
    };
    let calls = [
        ("first", Metadata::new()),
        ("", Metadata::new()),
        ("a child, not sampled", parent("00")),
        ("a child, sampled", parent("01")),
    ];
    for (text, metadata) in calls {
        let request = StringValue {
            value: text.to_owned(),
            ..Default::default()
        };
        let options = CallOptions::new().metadata(metadata);
        let _: StringValue = client.unary("/demo.Echo/Say", &request, options).unwrap();
        while server.in_flight() > 0 {
            std::thread::yield_now();
        }
    }
    server.stop();
    let size = size_of::<super::span::Span>();
    println!("a span: {size} bytes, and those that it points to");
}
