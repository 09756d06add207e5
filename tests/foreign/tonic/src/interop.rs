//! The published interop cases, after gRPC's `doc/interop-test-descriptions.md`.
//!
//! `client_compressed_*` go without the first step, which probes whether the server checks that a request was
//! compressed. A call is cancelled by dropping it, after which tonic has no status to show.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{iter, StreamExt};
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Response};

use crate::protos::testing::unimplemented_service_client::UnimplementedServiceClient;
use crate::protos::testing::{
    BoolValue, EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, SimpleResponse,
    StreamingInputCallRequest, StreamingOutputCallRequest,
};
use crate::{check_code, check_equal, request, status_of, Outcome, TestClient};

const REQUEST_SIZES: [usize; 4] = [27182, 8, 1828, 45904];
const REPLY_SIZES: [usize; 4] = [31415, 9, 2653, 58979];
const INITIAL: &str = "x-grpc-test-echo-initial";
const TRAILING: &str = "x-grpc-test-echo-trailing-bin";

pub async fn run(case: &str, channel: Channel) -> Outcome {
    let mut client = TestClient::new(channel.clone());
    match case {
        "empty_unary" => {
            let reply = client.empty_call(request(Empty {})).await?;
            check_equal(reply.into_inner(), Empty {})
        }
        "large_unary" => check_large(client.unary_call(request(large())).await?),
        "client_compressed_unary" => {
            let mut compressing = client.clone().send_compressed(CompressionEncoding::Gzip);
            check_large(compressing.unary_call(request(expecting(true))).await?)?;
            check_large(client.unary_call(request(expecting(false))).await?)
        }
        "client_streaming" => {
            let requests = REQUEST_SIZES.map(input_request);
            let reply = client.streaming_input_call(request(iter(requests))).await?;
            check_equal(reply.into_inner().aggregated_payload_size, 74922)
        }
        "client_compressed_streaming" => {
            // This client compresses a whole call or none of it.
            let compressing = client.clone().send_compressed(CompressionEncoding::Gzip);
            for mut client in [compressing, client] {
                let requests = [27182, 45904].map(input_request);
                let reply = client.streaming_input_call(request(iter(requests))).await?;
                check_equal(reply.into_inner().aggregated_payload_size, 73086)?;
            }
            Ok(())
        }
        "server_streaming" => {
            let request = request(output_request(0, &REPLY_SIZES));
            let mut replies = client.streaming_output_call(request).await?.into_inner();
            for size in REPLY_SIZES {
                check_payload(replies.message().await?.and_then(|it| it.payload), size)?;
            }
            check_equal(replies.message().await?, None)
        }
        "ping_pong" => {
            let (sender, receiver) = mpsc::channel(1);
            let requests = request(ReceiverStream::new(receiver));
            // This client waits for the headers, which may come with the first reply.
            sender
                .send(output_request(REQUEST_SIZES[0], &REPLY_SIZES[..1]))
                .await?;
            let mut replies = client.full_duplex_call(requests).await?.into_inner();
            for (number, reply_size) in REPLY_SIZES.into_iter().enumerate() {
                if number > 0 {
                    sender
                        .send(output_request(REQUEST_SIZES[number], &[reply_size]))
                        .await?;
                }
                check_payload(
                    replies.message().await?.and_then(|it| it.payload),
                    reply_size,
                )?;
            }
            drop(sender);
            check_equal(replies.message().await?, None)
        }
        "empty_stream" => {
            let requests = request(tokio_stream::empty());
            let mut replies = client.full_duplex_call(requests).await?.into_inner();
            check_equal(replies.message().await?, None)
        }
        "custom_metadata" => {
            let reply = client.unary_call(with_metadata(large())?).await?;
            // A unary call's headers and trailers come in one map.
            check_echo(reply.metadata(), INITIAL)?;
            check_echo(reply.metadata(), TRAILING)?;
            check_large(reply)?;
            let requests = iter([output_request(271828, &[314159])]);
            let reply = client.full_duplex_call(with_metadata(requests)?).await?;
            check_echo(reply.metadata(), INITIAL)?;
            let mut replies = reply.into_inner();
            check_payload(replies.message().await?.and_then(|it| it.payload), 314159)?;
            check_equal(replies.message().await?, None)?;
            check_echo(&replies.trailers().await?.unwrap_or_default(), TRAILING)
        }
        "status_code_and_message" => check_status(client, "test status message").await,
        "special_status_message" => {
            let message = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
            check_status(client, message).await
        }
        "unimplemented_method" => {
            let reply = client.unimplemented_call(request(Empty {})).await;
            check_code(reply, Code::Unimplemented)
        }
        "unimplemented_service" => {
            let mut client = UnimplementedServiceClient::new(channel);
            let reply = client.unimplemented_call(request(Empty {})).await;
            check_code(reply, Code::Unimplemented)
        }
        "cancel_after_begin" => {
            let never = request(tokio_stream::pending());
            tokio::select! {
                reply = client.streaming_input_call(never) => Err(format!("{reply:?}").into()),
                () = tokio::task::yield_now() => Ok(()),
            }
        }
        "cancel_after_first_response" => {
            let requests = iter([output_request(27182, &[31415])]);
            let requests = request(requests.chain(tokio_stream::pending()));
            let mut replies = client.full_duplex_call(requests).await?.into_inner();
            check_payload(replies.message().await?.and_then(|it| it.payload), 31415)
        }
        "timeout_on_sleeping_server" => {
            let requests = iter([output_request(27182, &[])]);
            let mut request = Request::new(requests.chain(tokio_stream::pending()));
            request.set_timeout(Duration::from_millis(1));
            let status = status_of(client.full_duplex_call(request).await)?;
            // If this client's own clock is first, it says CANCELLED.
            let expected = [Code::DeadlineExceeded, Code::Cancelled];
            check_equal(expected.contains(&status.code()), true)
        }
        _ => Err("there is no such case".into()),
    }
}

async fn check_status(mut client: TestClient, message: &str) -> Outcome {
    let status = Some(EchoStatus {
        code: 2,
        message: message.to_owned(),
    });
    let unary = SimpleRequest {
        response_status: status.clone(),
        ..Default::default()
    };
    let unary = status_of(client.unary_call(request(unary)).await)?;
    let stream = StreamingOutputCallRequest {
        response_status: status,
        ..Default::default()
    };
    let duplex = match client.full_duplex_call(request(iter([stream]))).await {
        Ok(replies) => status_of(replies.into_inner().message().await)?,
        Err(status) => status,
    };
    for status in [unary, duplex] {
        check_equal((status.code(), status.message()), (Code::Unknown, message))?;
    }
    Ok(())
}

fn zeros(size: usize) -> Option<Payload> {
    Some(Payload {
        body: vec![0; size],
        ..Default::default()
    })
}

fn large() -> SimpleRequest {
    SimpleRequest {
        response_size: 314159,
        payload: zeros(271828),
        ..Default::default()
    }
}

fn expecting(compressed: bool) -> SimpleRequest {
    SimpleRequest {
        expect_compressed: Some(BoolValue { value: compressed }),
        ..large()
    }
}

fn input_request(size: usize) -> StreamingInputCallRequest {
    StreamingInputCallRequest {
        payload: zeros(size),
        ..Default::default()
    }
}

fn output_request(size: usize, replies: &[usize]) -> StreamingOutputCallRequest {
    let parameters = |size: &usize| ResponseParameters {
        size: *size as i32,
        ..Default::default()
    };
    StreamingOutputCallRequest {
        response_parameters: replies.iter().map(parameters).collect(),
        payload: zeros(size),
        ..Default::default()
    }
}

fn check_large(reply: Response<SimpleResponse>) -> Outcome {
    check_payload(reply.into_inner().payload, 314159)
}

fn check_payload(payload: Option<Payload>, size: usize) -> Outcome {
    check_equal(payload.map(|it| it.body.len()), Some(size))
}

fn with_metadata<T>(message: T) -> Outcome<Request<T>> {
    let mut request = request(message);
    let metadata = request.metadata_mut();
    metadata.insert(INITIAL, "test_initial_metadata_value".parse()?);
    metadata.insert_bin(TRAILING, MetadataValue::from_bytes(b"\xab\xab\xab"));
    Ok(request)
}

fn check_echo(metadata: &tonic::metadata::MetadataMap, name: &str) -> Outcome {
    match name {
        INITIAL => check_equal(
            metadata.get(INITIAL).and_then(|it| it.to_str().ok()),
            Some("test_initial_metadata_value"),
        ),
        _ => check_equal(
            metadata.get_bin(TRAILING).and_then(|it| it.to_bytes().ok()),
            Some(b"\xab\xab\xab".as_slice().into()),
        ),
    }
}
