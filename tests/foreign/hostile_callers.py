"""The innocent callers of hostile.py: a gRPC client of Python's that knows nothing of the attack.

    python3 hostile_callers.py PORT [CERTIFICATE]

Three callers share a channel that is open all the time, one makes a new connection for each call, and one asks for the
server's health. Each calls at a pace that leaves the server idle. One line on the standard output for each call: its
kind ("open", "new", "health"), when it began on the monotonic clock, how long it took, and its status. They go on until the
standard input ends.
"""

import sys
import threading
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

DEADLINE_S = 3
# Seconds between two calls of a caller.
PACE = {"open": 0.02, "new": 0.12, "health": 0.2}
OPEN_CALLERS = 3
HELLO = b"\x0a\x03you"
ANSWER = b"\x0a\x0bHello, you!"


class Callers:
    def __init__(self, port, certificate):
        self.address = f"127.0.0.1:{port}"
        self.credentials = None
        if certificate:
            with open(certificate, "rb") as file:
                self.credentials = grpc.ssl_channel_credentials(file.read())
        self.stopping = threading.Event()
        self.lock = threading.Lock()

    def channel(self, *options):
        # One that fails is to be tried again at once, as far as the library does so.
        options = [*options, ("grpc.enable_http_proxy", 0)]
        if self.credentials:
            return grpc.secure_channel(self.address, self.credentials, options)
        return grpc.insecure_channel(self.address, options)

    def greet(self, channel):
        call = channel.unary_unary("/greeter.Greeter/SayHello")
        return "OK" if call(HELLO, timeout=DEADLINE_S) == ANSWER else "WRONG"

    def greet_anew(self, _):
        with self.channel(("grpc.use_local_subchannel_pool", 1)) as channel:
            return self.greet(channel)

    def ask_for_health(self, channel):
        asked = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=DEADLINE_S)
        return "OK" if asked.status == health_pb2.HealthCheckResponse.SERVING else "NOT_SERVING"

    def run(self, kind, call, channel):
        due = time.monotonic()
        while not self.stopping.wait(max(0.0, due - time.monotonic())):
            began = time.monotonic()
            try:
                status = call(channel)
            except grpc.RpcError as error:
                status = error.code().name
            took = time.monotonic() - began
            with self.lock:
                print(kind, f"{began:.6f}", f"{took:.6f}", status, flush=True)
            # Calls that were due meanwhile are not made up for.
            due = max(due + PACE[kind], began + took)

    def start(self):
        shared, for_health = self.channel(), self.channel(("grpc.use_local_subchannel_pool", 1))
        jobs = [("open", self.greet, shared)] * OPEN_CALLERS
        jobs += [("new", self.greet_anew, None), ("health", self.ask_for_health, for_health)]
        for job in jobs:
            threading.Thread(target=self.run, args=job, daemon=True).start()


def main():
    callers = Callers(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    callers.start()
    sys.stdin.read()
    callers.stopping.set()


if __name__ == "__main__":
    main()
