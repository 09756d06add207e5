"""What the published interop cases leave out, on grpcio.

    conformance.py ADDRESS CASE...
"""

import threading
import uuid

import grpc

import cases
from cases import TIMEOUT_S, case, check, check_equal, connect, main

protos, services = grpc.protos_and_services("conformance.proto")

MIB = 1 << 20
MESSAGES = ("", "plain", "100% of %41 is %", "Grüße, 世界 🚀", "line 1\r\nline 2\ttab", " spaces around ")
METADATA = (
    ("header-text", "value with spaces, and ~!@#$%^&*()"),
    ("header-repeated", "first"),
    ("header-repeated", "second"),
    ("header-empty", ""),
    ("header-raw-bin", bytes(range(256))),
    ("trailer-text", "last"),
    ("trailer-raw-bin", b"\x00"),
    ("trailer-raw-bin", b""),
    ("trailer-raw-bin", b"\xff,\xff"),
)


def start(channel, kind, requests, timeout=TIMEOUT_S, **options):
    """Starts a call of any kind. The result has code(), trailers and so on."""
    stub = services.ConformanceStub(channel)
    options["timeout"] = timeout
    if kind == "unary":
        return stub.Unary.future(requests[0], **options)
    if kind == "server_streaming":
        return stub.ServerStreaming(requests[0], **options)
    if kind == "client_streaming":
        return stub.ClientStreaming.future(iter(requests), **options)
    return stub.Bidirectional(iter(requests), **options)


KINDS = ("unary", "server_streaming", "client_streaming", "bidirectional")


def replies_of(kind, call):
    return cases.replies_of(call, stream=kind in ("server_streaming", "bidirectional"))


def status_of(kind, call):
    return cases.status_of(call, stream=kind in ("server_streaming", "bidirectional"))


def waiting(kind, stop):
    """Requests after which the handler waits; a stream of them stays open until `stop`."""
    yield protos.Request(wait=True)
    stop.wait(TIMEOUT_S)


def start_waiting(channel, kind, stop, **options):
    """Starts a call of whose end its handler is to be told. Returns it once the handler waits, and its id."""
    call_id = str(uuid.uuid4())
    requests = waiting(kind, stop) if "client" in kind or "bi" in kind else [protos.Request(wait=True)]
    call = start(channel, kind, requests, metadata=(("call-id", call_id),), **options)
    observe(channel, call_id, until_waiting=True)
    return call, call_id


def observe(channel, call_id, **until):
    request = protos.ObserveRequest(call_id=call_id, **until)
    return services.ConformanceStub(channel).Observe(request, timeout=TIMEOUT_S).end


@case
def unary(channel):
    (reply,) = replies_of("unary", start(channel, "unary", [protos.Request(body=b"12345", reply_size=7)]))
    check_equal((reply.received, reply.body), (5, b"xxxxxxx"))


@case
def server_streaming(channel):
    replies = replies_of("server_streaming", start(channel, "server_streaming", [protos.Request(body=b"123", replies=1000)]))
    check_equal([reply.received for reply in replies], [3] * 1000)


@case
def client_streaming(channel):
    requests = [protos.Request(body=b"ab", reply_size=3)] * 1000
    (reply,) = replies_of("client_streaming", start(channel, "client_streaming", requests))
    check_equal((reply.received, reply.body), (2000, b"xxx"))


@case
def bidirectional(channel):
    replies = replies_of("bidirectional", start(channel, "bidirectional", [protos.Request(body=b"ab")] * 1000))
    check_equal([reply.received for reply in replies], list(range(2, 2002, 2)))


@case
def metadata(channel):
    for kind in KINDS:
        call = start(channel, kind, [protos.Request(replies=1)], metadata=METADATA)
        (reply,) = replies_of(kind, call)
        seen = [(it.name, it.value) for it in reply.metadata if it.name.startswith(("header-", "trailer-"))]
        check_equal(sorted(seen), sorted((name, as_bytes(value)) for name, value in METADATA))
        check_echo(call, "header-", call.initial_metadata())
        check_echo(call, "trailer-", call.trailing_metadata())


def check_echo(call, prefix, seen):
    """Values of one name keep their order; names may come in any."""
    ours = sorted([tuple(it) for it in seen if it[0].startswith(prefix)], key=lambda it: it[0])
    expected = sorted([it for it in METADATA if it[0].startswith(prefix)], key=lambda it: it[0])
    check_equal(ours, expected)


def as_bytes(value):
    return value.encode() if isinstance(value, str) else value


@case
def statuses(channel):
    codes = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]
    check_equal(len(codes), 16)
    for kind in KINDS:
        for number, code in enumerate(codes):
            message = MESSAGES[number % len(MESSAGES)]
            ending = protos.Ending(code=code.value[0], message=message, details=b"\x00details\xff")
            trailers = (("trailer-text", "still sent"),)
            call = start(channel, kind, [protos.Request(ending=ending, replies=1)], metadata=trailers)
            status = status_of(kind, call)
            check_equal((kind, status.code(), status.details()), (kind, code, message))
            check(("grpc-status-details-bin", b"\x00details\xff") in status.trailing_metadata())
            check(trailers[0] in status.trailing_metadata())
        call = start(channel, kind, [protos.Request(ending=protos.Ending(code=0), replies=1)])
        replies_of(kind, call)
        check_equal(call.code(), grpc.StatusCode.OK)


@case
def deadline(channel):
    (reply,) = replies_of("unary", start(channel, "unary", [protos.Request()], timeout=60))
    # This client rounds what it sends up, to three digits or so.
    check(0 < reply.time_remaining_ms <= 61_000, reply.time_remaining_ms)
    for kind in KINDS:
        stop = threading.Event()
        call, call_id = start_waiting(channel, kind, stop, timeout=0.5)
        check_equal((kind, status_of(kind, call).code()), (kind, grpc.StatusCode.DEADLINE_EXCEEDED))
        # This client cancels the call then. Which of the two the server sees first is open.
        check(observe(channel, call_id) in ("DEADLINE_EXCEEDED", "CANCELLED"), kind)
        stop.set()


@case
def cancellation(channel):
    for kind in KINDS:
        stop = threading.Event()
        call, call_id = start_waiting(channel, kind, stop)
        call.cancel()
        check_equal((kind, status_of(kind, call).code()), (kind, grpc.StatusCode.CANCELLED))
        check_equal((kind, observe(channel, call_id)), (kind, "CANCELLED"))
        stop.set()


@case
def large_messages(channel):
    for kind in KINDS:
        (reply,) = replies_of(kind, start(channel, kind, [large(3 * MIB, reply_size=3 * MIB)]))
        check_equal((kind, reply.received, len(reply.body)), (kind, 3 * MIB, 3 * MIB))
        # The server's limit, and then this client's own.
        check_equal((kind, status_of(kind, start(channel, kind, [large(4 * MIB)])).code()), (kind, EXHAUSTED))
        check_equal((kind, status_of(kind, start(channel, kind, [large(0, reply_size=4 * MIB)])).code()), (kind, EXHAUSTED))
    unary(channel)


EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED


def large(size, **fields):
    return protos.Request(body=bytes(size), replies=1, **fields)


@case
def compression(_):
    for algorithm in (grpc.Compression.Gzip, grpc.Compression.Deflate):
        # Set for the channel: a call's own is ignored where requests stream and the reply does not.
        with connect(compression=algorithm) as channel:
            for kind in KINDS:
                (reply,) = replies_of(kind, start(channel, kind, [large(MIB, reply_size=MIB)]))
                check_equal((kind, reply.received, len(reply.body)), (kind, MIB, MIB))
                # A few KiB on the wire, and too much once decompressed.
                status = status_of(kind, start(channel, kind, [large(5 * MIB)]))
                check_equal((kind, status.code()), (kind, EXHAUSTED))
                check("decompressed" in status.details(), kind, status.details())


if __name__ == "__main__":
    main()
