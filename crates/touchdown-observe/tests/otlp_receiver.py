"""Takes spans by OTLP over HTTP, and reads them by what PyPI's opentelemetry-proto has generated.

For tests/otel.rs: `pip install opentelemetry-proto`, and set TOUCHDOWN_PYTHON to that Python.

It says where it listens. When its standard input ends it checks what it was sent, says each span in a line, then how many
there were of how many traces, and ends with 0 if all is as OTLP and the conventions have it.
"""

import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf import unknown_fields
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, SpanFlags, Status

SCHEMA_URL = "https://opentelemetry.io/schemas/1.45.0"
REQUIRED = {"rpc.system.name", "rpc.method", "rpc.status_code"}
KNOWN = REQUIRED | {"error.type", "network.peer.address", "network.peer.port"}
# The server's own fault, by the conventions for gRPC.
ERRORS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}

requests = []
wrong = []


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path != "/v1/traces" or self.headers["content-type"] != "application/x-protobuf":
            wrong.append(f"{self.path} {self.headers}")
        requests.append(ExportTraceServiceRequest.FromString(body))
        response = ExportTraceServiceResponse().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(response)))
        self.end_headers()
        self.wfile.write(response)

    def log_message(self, *arguments):
        pass


def check(is_right, what):
    if not is_right:
        wrong.append(what)


def check_unknown(message):
    """No message has a field that its definition does not have."""
    check(len(unknown_fields.UnknownFieldSet(message)) == 0, f"unknown fields in {message}")
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if not field.is_repeated else value:
                check_unknown(part)


def text(value):
    return getattr(value, value.WhichOneof("value"))


def check_span(span):
    attributes = {it.key: text(it.value) for it in span.attributes}
    print(f"{span.name} {span.trace_id.hex()} {span.span_id.hex()} under {span.parent_span_id.hex() or 'nothing'} {attributes}")
    check(len(attributes) == len(span.attributes), f"a key occurs twice: {span}")
    check(REQUIRED <= set(attributes) <= KNOWN, f"attributes: {span}")
    check(len(span.trace_id) == 16 and any(span.trace_id), f"trace: {span}")
    check(len(span.span_id) == 8 and any(span.span_id), f"id: {span}")
    check(len(span.parent_span_id) in (0, 8), f"parent: {span}")
    check(span.kind == Span.SPAN_KIND_SERVER, f"kind: {span}")
    check(0 < span.start_time_unix_nano <= span.end_time_unix_nano, f"times: {span}")
    check(attributes["rpc.system.name"] == "grpc", f"system: {span}")
    is_known = attributes["rpc.method"] != "_OTHER"
    check(span.name == (attributes["rpc.method"] if is_known else "grpc"), f"name: {span}")
    is_error = attributes["rpc.status_code"] in ERRORS
    check((span.status.code == Status.STATUS_CODE_ERROR) == is_error, f"status: {span}")
    check(attributes.get("error.type") == (attributes["rpc.status_code"] if is_error else None), f"error: {span}")
    check(isinstance(attributes.get("network.peer.port", 0), int), f"port: {span}")
    flags = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
    check(span.flags & flags, f"flags: {span}")
    is_remote = span.flags & SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    check(bool(is_remote) == bool(span.parent_span_id), f"flags: {span}")
    check(span.flags & 1, f"it is not sampled: {span}")
    for event in span.events:
        check(event.name.startswith("touchdown."), f"event: {span}")
        check(span.start_time_unix_nano <= event.time_unix_nano <= span.end_time_unix_nano, f"event: {span}")


def check_tree(spans):
    """All hang under one of them, or under the same one of the caller."""
    by_id = {it.span_id: it for it in spans}
    check(len(by_id) == len(spans), "an id occurs twice")
    roots = [it for it in spans if it.parent_span_id not in by_id]
    check(len(roots) == 1, f"{len(roots)} spans hang under nothing that is here")
    for span in spans:
        seen = set()
        while span.parent_span_id in by_id and span.span_id not in seen:
            seen.add(span.span_id)
            span = by_id[span.parent_span_id]
        check(span is roots[0], "it goes round in a circle")


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"listening at http://127.0.0.1:{server.server_port}", flush=True)
    sys.stdin.read()

    traces = {}
    for request in requests:
        check_unknown(request)
        for of_resource in request.resource_spans:
            resource = {it.key: text(it.value) for it in of_resource.resource.attributes}
            check(resource["service.name"] == "greeter", f"{resource}")
            check(resource["telemetry.sdk.language"] == "rust", f"{resource}")
            check(of_resource.schema_url == SCHEMA_URL, of_resource.schema_url)
            for of_scope in of_resource.scope_spans:
                check(of_scope.scope.name == "touchdown-observe", f"{of_scope.scope}")
                check(of_scope.schema_url == SCHEMA_URL, of_scope.schema_url)
                for span in of_scope.spans:
                    check_span(span)
                    traces.setdefault(span.trace_id, []).append(span)
    for spans in traces.values():
        check_tree(spans)
    for what in wrong:
        print(f"wrong: {what}")
    print(f"{sum(map(len, traces.values()))} spans, {len(traces)} traces", flush=True)
    return 1 if wrong else 0


sys.exit(main())
