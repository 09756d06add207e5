"""A client that asks a server for its health, and one that goes where servers are healthy.

`health.py probe ADDRESS` asks with the standard stub, once in each way, and then watches until the stream ends.
It writes a line for everything it is told.

`health.py call ADDRESS ADDRESS` calls /test.Echo/Say without a pause, over one channel that takes turns between
those servers that say they are healthy. It is told what to do on standard input: for every line it answers
with a line of JSON that counts the replies of each server and the calls that failed; at the end of input its
callers finish the call they are in, and it ends after one more such line. There are no retries, not even
transparent ones.
"""

import collections
import json
import sys
import threading

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

DEADLINE_S = 20
CALLERS = 8
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "test.Echo"},
}
CHANNEL_OPTIONS = [
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.service_config", json.dumps(SERVICE_CONFIG)),
]


def name(response):
    return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)


def tell(*words):
    print(*words, flush=True)


def probe(address):
    with grpc.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ["", "test.Echo", "test.Other"]:
            request = health_pb2.HealthCheckRequest(service=service)
            try:
                tell("check", service, name(health.Check(request, timeout=DEADLINE_S)))
            except grpc.RpcError as error:
                tell("check", service, error.code().name)
        listed = health.List(health_pb2.HealthListRequest(), timeout=DEADLINE_S)
        for service in sorted(listed.statuses):
            tell("list", service, name(listed.statuses[service]))
        watch = health.Watch(health_pb2.HealthCheckRequest(service="test.Echo"), timeout=DEADLINE_S)
        try:
            for response in watch:
                tell("watch", name(response))
        except grpc.RpcError:
            pass
        tell("end", watch.code().name)


class Tally:
    """What became of the calls; one for all callers."""

    def __init__(self):
        self._lock = threading.Lock()
        self._replies = collections.Counter()
        self._failed = 0
        self._examples = []

    def add_reply(self, server):
        with self._lock:
            self._replies[server] += 1

    def add_failure(self, error):
        with self._lock:
            self._failed += 1
            self._examples = [*self._examples, f"{error.code().name}: {error.details()}"][:10]

    def as_json(self):
        with self._lock:
            return json.dumps({"failed": self._failed, "examples": self._examples, **self._replies})


def call_until(stop, say, tally):
    while not stop.is_set():
        try:
            # A StringValue with the name of the server.
            tally.add_reply(say(b"", timeout=DEADLINE_S)[2:].decode())
        except grpc.RpcError as error:
            tally.add_failure(error)
            stop.wait(0.01)


def call(addresses):
    tally, stop = Tally(), threading.Event()
    with grpc.insecure_channel("ipv4:" + ",".join(addresses), options=CHANNEL_OPTIONS) as channel:
        say = channel.unary_unary("/test.Echo/Say")
        callers = [threading.Thread(target=call_until, args=(stop, say, tally)) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        for _ in sys.stdin:
            tell(tally.as_json())
        stop.set()
        for caller in callers:
            caller.join()
    tell(tally.as_json())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["probe", address]:
            probe(address)
        case ["call", *addresses] if addresses:
            call(addresses)
        case _:
            sys.exit(__doc__)
