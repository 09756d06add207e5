//! What the published interop cases leave out.

use std::pin::Pin;
use std::time::Duration;

use tokio_stream::{iter, pending, Stream, StreamExt};
use tonic::codec::CompressionEncoding;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::protos::conformance::conformance_client::ConformanceClient;
use crate::protos::conformance::{Ending, ObserveRequest, Reply, Request};
use crate::{check_equal, status_of, Outcome, TIMEOUT};

const MIB: usize = 1 << 20;

type Client = ConformanceClient<Channel>;
type Requests = Pin<Box<dyn Stream<Item = Request> + Send>>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Unary,
    ServerStreaming,
    ClientStreaming,
    Bidirectional,
}

use Kind::{Bidirectional, ClientStreaming, ServerStreaming, Unary};

const KINDS: [Kind; 4] = [Unary, ServerStreaming, ClientStreaming, Bidirectional];

/// What came of a call. The headers of a call with one reply, or with none, have its trailers, too.
#[derive(Debug, Default)]
struct Ended {
    headers: MetadataMap,
    replies: Vec<Reply>,
    trailers: MetadataMap,
}

/// Makes a call of any kind and waits for its end.
async fn call(
    client: &mut Client,
    kind: Kind,
    first: Request,
    rest: Requests,
    timeout: Duration,
    metadata: MetadataMap,
) -> Result<Ended, Status> {
    let requests = iter([first.clone()]).chain(rest);
    macro_rules! request {
        ($message:expr) => {{
            let mut request = tonic::Request::new($message);
            *request.metadata_mut() = metadata;
            request.set_timeout(timeout);
            request
        }};
    }
    let one = match kind {
        Unary => client.unary(request!(first)).await?,
        ClientStreaming => client.client_streaming(request!(requests)).await?,
        _ => {
            let answer = match kind {
                ServerStreaming => client.server_streaming(request!(first)).await?,
                _ => client.bidirectional(request!(requests)).await?,
            };
            let (headers, mut stream, _) = answer.into_parts();
            let mut ended = Ended {
                headers,
                ..Default::default()
            };
            while let Some(reply) = stream.message().await? {
                ended.replies.push(reply);
            }
            ended.trailers = stream.trailers().await?.unwrap_or_default();
            return Ok(ended);
        }
    };
    let (headers, reply, _) = one.into_parts();
    Ok(Ended {
        trailers: headers.clone(),
        headers,
        replies: vec![reply],
    })
}

async fn simple(client: &mut Client, kind: Kind, request: Request) -> Result<Ended, Status> {
    let none = Box::pin(tokio_stream::empty());
    call(client, kind, request, none, TIMEOUT, MetadataMap::new()).await
}

async fn repeated(client: &mut Client, kind: Kind, request: Request) -> Outcome<Vec<u64>> {
    let rest = Box::pin(iter(vec![request.clone(); 999]));
    let ended = call(client, kind, request, rest, TIMEOUT, MetadataMap::new()).await?;
    Ok(ended.replies.iter().map(|it| it.received).collect())
}

pub async fn run(case: &str, channel: Channel) -> Outcome {
    let mut client = Client::new(channel);
    match case {
        "unary" => basic_unary(&mut client).await,
        "server_streaming" => {
            let request = Request {
                body: b"123".to_vec(),
                replies: 1000,
                ..Default::default()
            };
            let received = repeated(&mut client, ServerStreaming, request).await?;
            check_equal(received, vec![3; 1000])
        }
        "client_streaming" => {
            let received = repeated(&mut client, ClientStreaming, body(2)).await?;
            check_equal(received, vec![2000])
        }
        "bidirectional" => {
            let received = repeated(&mut client, Bidirectional, body(2)).await?;
            check_equal(received, (1..=1000).map(|it| it * 2).collect::<Vec<_>>())
        }
        "metadata" => metadata(&mut client).await,
        "statuses" => statuses(&mut client).await,
        "deadline" => deadline(&mut client).await,
        "cancellation" => cancellation(&mut client).await,
        "large_messages" => large_messages(&mut client).await,
        "compression" => compression(client).await,
        _ => Err("there is no such case".into()),
    }
}

async fn basic_unary(client: &mut Client) -> Outcome {
    let ended = simple(
        client,
        Unary,
        Request {
            reply_size: 7,
            ..body(5)
        },
    )
    .await?;
    check_equal(ended.replies[0].received, 5)?;
    check_equal(ended.replies[0].body.as_slice(), b"xxxxxxx")
}

fn body(size: usize) -> Request {
    Request {
        body: vec![0; size],
        replies: 1,
        ..Default::default()
    }
}

async fn metadata(client: &mut Client) -> Outcome {
    let every_byte: Vec<u8> = (0..=255).collect();
    let mut sent = MetadataMap::new();
    sent.insert("header-text", "value with spaces, and ~!@#$%^&*()".parse()?);
    sent.append("header-repeated", "first".parse()?);
    sent.append("header-repeated", "second".parse()?);
    sent.insert("header-empty", "".parse()?);
    sent.insert_bin("header-raw-bin", MetadataValue::from_bytes(&every_byte));
    sent.insert("trailer-text", "last".parse()?);
    for value in [&b"\0"[..], b"", b"\xff,\xff"] {
        sent.append_bin("trailer-raw-bin", MetadataValue::from_bytes(value));
    }
    for kind in KINDS {
        let none = Box::pin(tokio_stream::empty());
        let ended = call(client, kind, body(0), none, TIMEOUT, sent.clone()).await?;
        // As the handler saw it: by name, in the order of the values of a name.
        let seen = |name: &str| -> Vec<Vec<u8>> {
            let entries = ended.replies[0].metadata.iter();
            entries
                .filter(|it| it.name == name)
                .map(|it| it.value.clone())
                .collect()
        };
        for name in [
            "header-text",
            "header-repeated",
            "header-empty",
            "trailer-text",
        ] {
            let echoed = match name.starts_with("header-") {
                true => &ended.headers,
                false => &ended.trailers,
            };
            let text = |it: &MetadataMap| -> Vec<Vec<u8>> {
                it.get_all(name)
                    .iter()
                    .map(|it| it.as_encoded_bytes().to_vec())
                    .collect()
            };
            check_equal((kind, name, seen(name)), (kind, name, text(&sent)))?;
            check_equal((kind, name, text(echoed)), (kind, name, text(&sent)))?;
        }
        for (name, echoed) in [
            ("header-raw-bin", &ended.headers),
            ("trailer-raw-bin", &ended.trailers),
        ] {
            let bytes = |it: &MetadataMap| -> Outcome<Vec<Vec<u8>>> {
                let values = it.get_all_bin(name);
                values
                    .iter()
                    .map(|it| Ok(it.to_bytes()?.to_vec()))
                    .collect()
            };
            check_equal((kind, name, seen(name)), (kind, name, bytes(&sent)?))?;
            check_equal((kind, name, bytes(echoed)?), (kind, name, bytes(&sent)?))?;
        }
    }
    Ok(())
}

async fn statuses(client: &mut Client) -> Outcome {
    let messages = [
        "",
        "plain",
        "100% of %41 is %",
        "Grüße, 世界 🚀",
        "line 1\r\nline 2\ttab",
        " spaces around ",
    ];
    let details = b"\0details\xff".as_slice();
    let mut trailer = MetadataMap::new();
    trailer.insert("trailer-text", "still sent".parse()?);
    for kind in KINDS {
        simple(client, kind, body(0)).await?;
        for code in 1..=16 {
            let message = messages[code as usize % messages.len()];
            let ending = Ending {
                code,
                message: message.to_owned(),
                details: details.to_vec(),
            };
            let request = Request {
                ending: Some(ending),
                ..body(0)
            };
            let none = Box::pin(tokio_stream::empty());
            let ended = call(client, kind, request, none, TIMEOUT, trailer.clone()).await;
            let status = status_of(ended)?;
            check_equal((kind, status.code()), (kind, Code::from(code)))?;
            check_equal((kind, code, status.message()), (kind, code, message))?;
            check_equal((kind, code, status.details()), (kind, code, details))?;
            let echoed = status.metadata().get("trailer-text");
            check_equal(echoed, trailer.get("trailer-text"))?;
        }
    }
    Ok(())
}

/// Starts a call that waits, does `then` once its handler waits, and returns what came of the call, and how
/// its handler saw the end.
async fn waiting(
    client: &mut Client,
    kind: Kind,
    timeout: Duration,
    cancel: bool,
) -> Outcome<(Option<Code>, String)> {
    let id = format!("{kind:?}-{cancel}-{}", std::process::id());
    let mut metadata = MetadataMap::new();
    metadata.insert("call-id", id.parse()?);
    let request = Request {
        wait: true,
        ..body(0)
    };
    let mut observer = client.clone();
    let mut observe = async |until_waiting| -> Result<String, Status> {
        let request = ObserveRequest {
            call_id: id.clone(),
            until_waiting,
        };
        Ok(observer
            .observe(crate::request(request))
            .await?
            .into_inner()
            .end)
    };
    let call = call(
        client,
        kind,
        request,
        Box::pin(pending()),
        timeout,
        metadata,
    );
    let mut call = Box::pin(call);
    let code = tokio::select! {
        ended = &mut call => Some(status_of(ended)?.code()),
        observed = observe(true) => {
            observed.map_err(|it| format!("{kind:?} does not wait: {it}"))?;
            match cancel {
                true => None,
                false => Some(status_of(call.as_mut().await)?.code()),
            }
        }
    };
    drop(call);
    let end = observe(false)
        .await
        .map_err(|it| format!("{kind:?}: {it}"))?;
    Ok((code, end))
}

async fn deadline(client: &mut Client) -> Outcome {
    let none = Box::pin(tokio_stream::empty());
    let minute = Duration::from_secs(60);
    let ended = call(client, Unary, body(0), none, minute, MetadataMap::new()).await?;
    let remaining = ended.replies[0].time_remaining_ms;
    check_equal((1..=60_000).contains(&remaining), true)?;
    for kind in KINDS {
        let (code, seen) = waiting(client, kind, Duration::from_millis(500), false).await?;
        let expected = [(Some(Code::DeadlineExceeded), "DEADLINE_EXCEEDED".to_owned())];
        // Until the headers are there, this client keeps the time, too. If it is first, it says CANCELLED, and
        // cancels the call. After that it leaves the deadline to the server.
        let own = matches!(kind, Unary | ClientStreaming);
        let client_first = ["CANCELLED", "DEADLINE_EXCEEDED"].contains(&&*seen) && own;
        if !(client_first && code == Some(Code::Cancelled)) {
            check_equal((kind, [(code, seen)]), (kind, expected))?;
        }
    }
    Ok(())
}

async fn cancellation(client: &mut Client) -> Outcome {
    // Where a client's requests may still come, dropping the replies does not make tonic cancel the call.
    for kind in [Unary, ServerStreaming, ClientStreaming] {
        let seen = waiting(client, kind, TIMEOUT, true).await?;
        check_equal((kind, seen), (kind, (None, "CANCELLED".to_owned())))?;
    }
    Ok(())
}

async fn large_messages(client: &mut Client) -> Outcome {
    for kind in KINDS {
        let request = Request {
            reply_size: 3 * MIB as u32,
            ..body(3 * MIB)
        };
        check_large(kind, simple(client, kind, request).await?, 3 * MIB)?;
        // The server's limit, and then this client's own, for which tonic has a code of its own.
        let status = status_of(simple(client, kind, body(4 * MIB)).await)?;
        check_equal((kind, status.code()), (kind, Code::ResourceExhausted))?;
        let request = Request {
            reply_size: 4 * MIB as u32,
            ..body(0)
        };
        let status = status_of(simple(client, kind, request).await)?;
        check_equal((kind, status.code()), (kind, Code::OutOfRange))?;
    }
    basic_unary(client).await
}

fn check_large(kind: Kind, ended: Ended, size: usize) -> Outcome {
    let sizes: Vec<_> = ended
        .replies
        .iter()
        .map(|it| (it.received as usize, it.body.len()))
        .collect();
    check_equal((kind, sizes), (kind, vec![(size, size)]))
}

async fn compression(client: Client) -> Outcome {
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let client = client.clone().accept_compressed(encoding);
        let mut client = client.send_compressed(encoding);
        for kind in KINDS {
            let request = Request {
                reply_size: MIB as u32,
                ..body(MIB)
            };
            check_large(kind, simple(&mut client, kind, request).await?, MIB)?;
            // A few KiB on the wire, and too much once decompressed.
            let status = status_of(simple(&mut client, kind, body(5 * MIB)).await)?;
            check_equal((kind, status.code()), (kind, Code::ResourceExhausted))?;
            check_equal(
                (kind, status.message().contains("decompressed")),
                (kind, true),
            )?;
        }
    }
    Ok(())
}
