"""The published interop cases, after gRPC's doc/interop-test-descriptions.md, on grpcio.

    interop.py ADDRESS CASE...
"""

import threading

import grpc

from cases import TIMEOUT_S, case, check, check_equal, connect, main, status_of

messages, _ = grpc.protos_and_services("src/proto/grpc/testing/messages.proto")
empty, _ = grpc.protos_and_services("src/proto/grpc/testing/empty.proto")
_, services = grpc.protos_and_services("src/proto/grpc/testing/test.proto")

REQUEST_SIZES = (27182, 8, 1828, 45904)
REPLY_SIZES = (31415, 9, 2653, 58979)
METADATA = (
    ("x-grpc-test-echo-initial", "test_initial_metadata_value"),
    ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab"),
)


def stub(channel):
    return services.TestServiceStub(channel)


def zeros(size):
    return messages.Payload(body=bytes(size))


def large_request(**fields):
    return messages.SimpleRequest(response_size=314159, payload=zeros(271828), **fields)


def check_large(reply):
    check_equal(reply.payload, zeros(314159))


def output_request(request_size, *reply_sizes):
    parameters = [messages.ResponseParameters(size=size) for size in reply_sizes]
    return messages.StreamingOutputCallRequest(response_parameters=parameters, payload=zeros(request_size))


class Requests:
    """An iterator of requests that go out one by one, and end."""

    def __init__(self):
        self._requests, self._changed, self._ended = [], threading.Condition(), False

    def send(self, request):
        with self._changed:
            self._requests.append(request)
            self._changed.notify()

    def end(self):
        with self._changed:
            self._ended = True
            self._changed.notify()

    def __iter__(self):
        return self

    def __next__(self):
        with self._changed:
            self._changed.wait_for(lambda: self._requests or self._ended, TIMEOUT_S)
            if not self._requests:
                raise StopIteration
            return self._requests.pop(0)


@case
def empty_unary(channel):
    check_equal(stub(channel).EmptyCall(empty.Empty(), timeout=TIMEOUT_S), empty.Empty())


@case
def large_unary(channel):
    check_large(stub(channel).UnaryCall(large_request(), timeout=TIMEOUT_S))


@case
def client_compressed_unary(channel):
    probe = large_request(expect_compressed=messages.BoolValue(value=True))
    call = stub(channel).UnaryCall.future(probe, timeout=TIMEOUT_S, compression=grpc.Compression.NoCompression)
    check_equal(status_of(call).code(), grpc.StatusCode.INVALID_ARGUMENT)
    for compressed in (True, False):
        request = large_request(expect_compressed=messages.BoolValue(value=compressed))
        compression = grpc.Compression.Gzip if compressed else grpc.Compression.NoCompression
        check_large(stub(channel).UnaryCall(request, timeout=TIMEOUT_S, compression=compression))


@case
def client_streaming(channel):
    requests = (messages.StreamingInputCallRequest(payload=zeros(size)) for size in REQUEST_SIZES)
    reply = stub(channel).StreamingInputCall(requests, timeout=TIMEOUT_S)
    check_equal(reply.aggregated_payload_size, 74922)


@case
def client_compressed_streaming(_):
    # This client compresses a whole call or none of it; and it ignores a call's own `compression` here.
    def upload(compression, compressed):
        with connect(compression=compression) as channel:
            expected = messages.BoolValue(value=compressed)
            requests = (
                messages.StreamingInputCallRequest(payload=zeros(size), expect_compressed=expected)
                for size in (27182, 45904)
            )
            call = stub(channel).StreamingInputCall.future(requests, timeout=TIMEOUT_S)
            if compressed and compression == grpc.Compression.NoCompression:
                check_equal(status_of(call).code(), grpc.StatusCode.INVALID_ARGUMENT)
            else:
                check_equal(call.result().aggregated_payload_size, 73086)

    upload(grpc.Compression.NoCompression, True)
    upload(grpc.Compression.Gzip, True)
    upload(grpc.Compression.NoCompression, False)


@case
def server_streaming(channel):
    replies = stub(channel).StreamingOutputCall(output_request(0, *REPLY_SIZES), timeout=TIMEOUT_S)
    check_equal([len(reply.payload.body) for reply in replies], list(REPLY_SIZES))


@case
def ping_pong(channel):
    requests = Requests()
    replies = stub(channel).FullDuplexCall(requests, timeout=TIMEOUT_S)
    for request_size, reply_size in zip(REQUEST_SIZES, REPLY_SIZES):
        requests.send(output_request(request_size, reply_size))
        check_equal(next(replies).payload, zeros(reply_size))
    requests.end()
    check_equal(list(replies), [])


@case
def empty_stream(channel):
    check_equal(list(stub(channel).FullDuplexCall(iter(()), timeout=TIMEOUT_S)), [])


@case
def custom_metadata(channel):
    def check_echo(call):
        check(METADATA[0] in call.initial_metadata(), call.initial_metadata())
        check(METADATA[1] in call.trailing_metadata(), call.trailing_metadata())

    reply, call = stub(channel).UnaryCall.with_call(large_request(), metadata=METADATA, timeout=TIMEOUT_S)
    check_large(reply)
    check_echo(call)
    call = stub(channel).FullDuplexCall(iter([output_request(271828, 314159)]), metadata=METADATA, timeout=TIMEOUT_S)
    check_equal([len(reply.payload.body) for reply in call], [314159])
    check_echo(call)


def check_status(channel, message):
    status = messages.EchoStatus(code=2, message=message)
    unary = stub(channel).UnaryCall.future(messages.SimpleRequest(response_status=status), timeout=TIMEOUT_S)
    request = messages.StreamingOutputCallRequest(response_status=status)
    duplex = stub(channel).FullDuplexCall(iter([request]), timeout=TIMEOUT_S)
    for call in (status_of(unary), status_of(duplex, stream=True)):
        check_equal((call.code(), call.details()), (grpc.StatusCode.UNKNOWN, message))


@case
def status_code_and_message(channel):
    check_status(channel, "test status message")


@case
def special_status_message(channel):
    check_status(channel, "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n")


@case
def unimplemented_method(channel):
    call = stub(channel).UnimplementedCall.future(empty.Empty(), timeout=TIMEOUT_S)
    check_equal(status_of(call).code(), grpc.StatusCode.UNIMPLEMENTED)


@case
def unimplemented_service(channel):
    call = services.UnimplementedServiceStub(channel).UnimplementedCall.future(empty.Empty(), timeout=TIMEOUT_S)
    check_equal(status_of(call).code(), grpc.StatusCode.UNIMPLEMENTED)


@case
def cancel_after_begin(channel):
    call = stub(channel).StreamingInputCall.future(Requests(), timeout=TIMEOUT_S)
    call.cancel()
    check_equal(call.code(), grpc.StatusCode.CANCELLED)


@case
def cancel_after_first_response(channel):
    requests = Requests()
    replies = stub(channel).FullDuplexCall(requests, timeout=TIMEOUT_S)
    requests.send(output_request(27182, 31415))
    check_equal(next(replies).payload, zeros(31415))
    replies.cancel()
    check_equal(status_of(replies, stream=True).code(), grpc.StatusCode.CANCELLED)


@case
def timeout_on_sleeping_server(channel):
    requests = Requests()
    replies = stub(channel).FullDuplexCall(requests, timeout=0.001)
    requests.send(output_request(27182))
    check_equal(status_of(replies, stream=True).code(), grpc.StatusCode.DEADLINE_EXCEEDED)


if __name__ == "__main__":
    main()
