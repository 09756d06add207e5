//! `grpc.testing.TestService`, with the features that gRPC's
//! [`interop-test-descriptions.md`](https://github.com/grpc/grpc/blob/master/doc/interop-test-descriptions.md)
//! asks of a server:
//!
//! | feature | here |
//! |---|---|
//! | EmptyCall, UnaryCall, StreamingInputCall, StreamingOutputCall, FullDuplexCall | yes |
//! | Echo Status, Echo Metadata, `interval_us`, `server_id` | yes |
//! | CompressedRequest | yes |
//! | CompressedResponse | no: replies are never compressed |
//! | CacheableUnaryCall | no: C-core has no GET any more |
//! | Echo Auth Information | no: there is no authentication |
//!
//! UnimplementedCall and UnimplementedService are not served, as the tests want it. HalfDuplexCall is in
//! `test.proto` and in no test; it is served as its comment says.

use std::time::Duration;

use touchdown::protobuf::{EnumOrUnknown, MessageField};
use touchdown::{Call, Replies, Requests, Service, Status};

use crate::protos::empty::Empty;
use crate::protos::messages::{
    BoolValue, EchoStatus, Payload, PayloadType, ResponseParameters, SimpleRequest, SimpleResponse,
    StreamingInputCallRequest, StreamingInputCallResponse, StreamingOutputCallRequest,
    StreamingOutputCallResponse,
};

const ECHO_INITIAL: &str = "x-grpc-test-echo-initial";
const ECHO_TRAILING: &str = "x-grpc-test-echo-trailing-bin";

/// The service. Made by hand, since the generated one has every method.
pub fn test_service() -> Service {
    Service::builder("grpc.testing.TestService")
        .unary("EmptyCall", |_: &Call, request: Empty| Ok(request))
        .unary("UnaryCall", unary_call)
        .client_streaming("StreamingInputCall", streaming_input_call)
        .server_streaming("StreamingOutputCall", streaming_output_call)
        .bidirectional("FullDuplexCall", full_duplex_call)
        .bidirectional("HalfDuplexCall", half_duplex_call)
        .build()
}

fn unary_call(call: &Call, request: SimpleRequest) -> Result<SimpleResponse, Status> {
    echo_metadata(call)?;
    expect_compressed(call, &request.expect_compressed)?;
    echo_status(&request.response_status)?;
    Ok(SimpleResponse {
        payload: payload(request.response_type, request.response_size)?,
        server_id: match request.fill_server_id {
            true => format!("touchdown {}", std::process::id()),
            false => String::new(),
        },
        ..Default::default()
    })
}

/// `CompressedRequest`: a request has to come as it says that it does.
fn expect_compressed(call: &Call, expected: &MessageField<BoolValue>) -> Result<(), Status> {
    match expected.as_ref() {
        Some(expected) if expected.value != call.is_request_compressed() => {
            Err(Status::invalid_argument(
                "the request is compressed, or is not, contrary to what it says",
            ))
        }
        _ => Ok(()),
    }
}

fn streaming_input_call(
    call: &Call,
    requests: Requests<StreamingInputCallRequest>,
) -> Result<StreamingInputCallResponse, Status> {
    echo_metadata(call)?;
    let mut size = 0;
    for request in requests {
        let request = request?;
        expect_compressed(call, &request.expect_compressed)?;
        size += request.payload.body.len();
    }
    let too_much = |_| Status::out_of_range("the sum is too large for an int32");
    Ok(StreamingInputCallResponse {
        aggregated_payload_size: size.try_into().map_err(too_much)?,
        ..Default::default()
    })
}

fn streaming_output_call(
    call: &Call,
    request: StreamingOutputCallRequest,
    replies: Replies<StreamingOutputCallResponse>,
) -> Result<(), Status> {
    echo_metadata(call)?;
    answer(call, &request, &replies)
}

fn full_duplex_call(
    call: &Call,
    requests: Requests<StreamingOutputCallRequest>,
    replies: Replies<StreamingOutputCallResponse>,
) -> Result<(), Status> {
    echo_metadata(call)?;
    for request in requests {
        answer(call, &request?, &replies)?;
    }
    Ok(())
}

fn half_duplex_call(
    call: &Call,
    requests: Requests<StreamingOutputCallRequest>,
    replies: Replies<StreamingOutputCallResponse>,
) -> Result<(), Status> {
    echo_metadata(call)?;
    let requests: Vec<_> = requests.collect::<Result<_, _>>()?;
    requests
        .iter()
        .try_for_each(|request| answer(call, request, &replies))
}

fn answer(
    call: &Call,
    request: &StreamingOutputCallRequest,
    replies: &Replies<StreamingOutputCallResponse>,
) -> Result<(), Status> {
    echo_status(&request.response_status)?;
    for parameters in &request.response_parameters {
        wait(call, parameters)?;
        replies.send(&StreamingOutputCallResponse {
            payload: payload(request.response_type, parameters.size)?,
            ..Default::default()
        })?;
    }
    Ok(())
}

fn wait(call: &Call, parameters: &ResponseParameters) -> Result<(), Status> {
    match u64::try_from(parameters.interval_us).map(Duration::from_micros) {
        Ok(Duration::ZERO) => Ok(()),
        Ok(interval) if call.token().wait_timeout(interval) => {
            Err(Status::cancelled("nobody waits for this any more"))
        }
        Ok(_) => Ok(()),
        Err(_) => Err(Status::invalid_argument("interval_us is negative")),
    }
}

fn payload(kind: EnumOrUnknown<PayloadType>, size: i32) -> Result<MessageField<Payload>, Status> {
    let size = usize::try_from(size)
        .map_err(|_| Status::invalid_argument("the size of a payload is negative"))?;
    match kind.enum_value() {
        Ok(PayloadType::COMPRESSABLE) => Ok(MessageField::some(Payload {
            type_: kind,
            body: vec![0; size],
            ..Default::default()
        })),
        Err(number) => Err(Status::invalid_argument(format!(
            "there is no payload of type {number}"
        ))),
    }
}

fn echo_metadata(call: &Call) -> Result<(), Status> {
    let cannot = |error: touchdown::MetadataError| Status::internal(error.to_string());
    if let Some(value) = call.metadata().get(ECHO_INITIAL) {
        call.set_header(ECHO_INITIAL, value).map_err(cannot)?;
    }
    if let Some(value) = call.metadata().get_bin(ECHO_TRAILING) {
        call.set_trailer(ECHO_TRAILING, value).map_err(cannot)?;
    }
    Ok(())
}

fn echo_status(wanted: &MessageField<EchoStatus>) -> Result<(), Status> {
    match wanted.as_ref() {
        Some(wanted) if wanted.code != 0 => Err(Status::new(
            touchdown::Code::from_number(wanted.code),
            wanted.message.clone(),
        )),
        _ => Ok(()),
    }
}
