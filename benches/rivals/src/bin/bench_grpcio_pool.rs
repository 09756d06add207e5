//! The greeter as `grpcio` is usually used by programs that block: its own threads poll, a pool of threads
//! behind them runs the handlers.
//!
//!     bench_grpcio_pool ADDRESS [THREADS]
//!
//! A completion queue and thread for each core, grpcio's default; 16 threads in the pool, as many as touchdown
//! has workers. The pool takes its jobs from a crossbeam channel, which is faster than the locked receiver of
//! the crate `threadpool`. The reply to a unary call goes back to grpcio's threads, which send it: that takes
//! less of the processor than a thread of the pool that sends it and waits until it is sent.

// Of this, only the messages are used.
touchdown::include_protos!();

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures_channel::oneshot;
use futures_executor::block_on;
use futures_util::{stream, SinkExt, TryStreamExt};
use greeter::{HelloReply, HelloRequest, ManyHellosRequest};
use grpcio::{Environment, Marshaller, Method, MethodType, ServerBuilder, ServiceBuilder};
use grpcio::{ServerCredentials, WriteFlags};

type Job = Box<dyn FnOnce() + Send>;

#[derive(Clone)]
struct Pool(crossbeam_channel::Sender<Job>);

impl Pool {
    fn new(threads: usize) -> Pool {
        let (sender, jobs) = crossbeam_channel::unbounded::<Job>();
        for _ in 0..threads {
            let jobs = jobs.clone();
            thread::spawn(move || jobs.iter().for_each(|job| job()));
        }
        Pool(sender)
    }

    fn run(&self, job: impl FnOnce() + Send + 'static) {
        let _ = self.0.send(Box::new(job));
    }
}

fn method<Q, R>(ty: MethodType, name: &'static str) -> Method<Q, R>
where
    Q: touchdown::protobuf::Message,
    R: touchdown::protobuf::Message,
{
    Method {
        ty,
        name,
        req_mar: Marshaller {
            ser: grpcio::pb_ser,
            de: grpcio::pb_de,
        },
        resp_mar: Marshaller {
            ser: grpcio::pb_ser,
            de: grpcio::pb_de,
        },
    }
}

fn service(pool: &Pool) -> grpcio::Service {
    let mut service = ServiceBuilder::new();

    let say_hello = method(MethodType::Unary, "/greeter.Greeter/SayHello");
    let threads = pool.clone();
    service = service.add_unary_handler(&say_hello, move |context, request: HelloRequest, sink| {
        let (sender, reply) = oneshot::channel();
        context.spawn(async move {
            if let Ok(reply) = reply.await {
                let _ = sink.success(reply).await;
            }
        });
        threads.run(move || {
            if request.think_ms > 0 {
                thread::sleep(Duration::from_millis(request.think_ms.into()));
            }
            let _ = sender.send(hello(&request.name));
        });
    });

    let say_many = method(
        MethodType::ServerStreaming,
        "/greeter.Greeter/SayManyHellos",
    );
    let threads = pool.clone();
    service = service.add_server_streaming_handler(
        &say_many,
        move |_, request: ManyHellosRequest, mut sink| {
            threads.run(move || {
                sink.enhance_batch(true);
                let replies =
                    (0..request.count).map(|_| Ok((hello(&request.name), WriteFlags::default())));
                let _ = block_on(async {
                    sink.send_all(&mut stream::iter(replies)).await?;
                    sink.close().await
                });
            });
        },
    );

    let greet_everybody = method(
        MethodType::ClientStreaming,
        "/greeter.Greeter/GreetEverybody",
    );
    let threads = pool.clone();
    service = service.add_client_streaming_handler(
        &greet_everybody,
        move |_, requests: grpcio::RequestStream<HelloRequest>, sink| {
            threads.run(move || {
                let names = block_on(requests.map_ok(|it| it.name).try_collect::<Vec<_>>());
                if let Ok(names) = names {
                    let _ = block_on(sink.success(hello(&names.join(" and "))));
                }
            });
        },
    );
    service.build()
}

fn hello(name: &str) -> HelloReply {
    let name = if name.is_empty() { "you" } else { name };
    HelloReply {
        text: format!("Hello, {name}!"),
        ..Default::default()
    }
}

fn main() -> Result<(), grpcio::Error> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().expect("ADDRESS [THREADS]");
    let threads = arguments
        .next()
        .map_or(16, |it| it.parse().expect("a number of threads"));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut server = ServerBuilder::new(Arc::new(Environment::new(cores)))
        .register_service(service(&Pool::new(threads)))
        .build()?;
    server.add_listening_port(address, ServerCredentials::insecure())?;
    server.start();
    loop {
        thread::park();
    }
}
