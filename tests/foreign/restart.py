"""Calls Greeter.SayHello without a pause, over one channel, and says what became of every call.

It runs as a child of restarts.py and is told what to do on standard input: for every line it answers with a
line of JSON that counts the calls so far; at the end of input its callers finish the call they are in,
and the last line it writes also has the times and examples of what was lost.

With `--health-checks` the channel calls only a server that says it is healthy.

There is no retry policy. `--retries none` takes transparent retries away, too: `grpc.enable_retries=0`. A call
made while the channel connects still waits for the outcome; that cannot be turned off.
"""

import argparse
import json
import random
import sys
import threading
import time

import grpc

SAY_HELLO = "/greeter.Greeter/SayHello"
DEADLINE_S = 30
PAUSE_AFTER_REFUSED_S = 0.005
CHANNEL_OPTIONS = [
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
]
HEALTH_CHECKS = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "greeter.Greeter"},
}


def varint(number):
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def string_field_1(text):
    content = text.encode()
    return b"\x0a" + varint(len(content)) + content


def hello_request(name, think_ms):
    return string_field_1(name) + (b"\x10" + varint(think_ms) if think_ms else b"")


def hello_reply(name):
    return string_field_1(f"Hello, {name}!")


class Tally:
    """What became of the calls; one for all callers."""

    def __init__(self):
        self._lock = threading.Lock()
        self._counts = {"calls": 0, "ok": 0, "refused": 0, "lost": 0}
        self._lost = []
        self._times_ms = []

    def add(self, outcome, started, began_ms, detail=None):
        took_ms = (time.monotonic() - started) * 1000
        with self._lock:
            self._counts["calls"] += 1
            self._counts[outcome] += 1
            if outcome == "ok":
                self._times_ms.append(took_ms)
            elif outcome == "lost":
                self._lost.append({"began_ms": began_ms, "took_ms": round(took_ms, 1), **detail})

    def so_far(self):
        with self._lock:
            return dict(self._counts)

    def summary(self):
        with self._lock:
            times = sorted(self._times_ms) or [0]
            return {
                **self._counts,
                "lost_examples": self._lost[:50],
                "p50_ms": round(times[len(times) // 2], 2),
                "max_ms": round(times[-1], 2),
            }


def outcome_of(error):
    """A call is not lost if the server could not be reached because nobody listened, and only then."""
    detail = error.details() or ""
    nobody_listens = error.code() is grpc.StatusCode.UNAVAILABLE and "Connection refused" in detail
    return "refused" if nobody_listens else "lost", {"code": error.code().name, "detail": detail}


def call_until(stop, say_hello, tally, caller, options):
    for number in range(sys.maxsize):
        if stop.is_set():
            return
        name = f"caller {caller} call {number} ".ljust(options.name_bytes, "x")
        think_ms = random.randint(options.think_ms_min, options.think_ms_max)
        began_ms, started = round(time.time() * 1000, 1), time.monotonic()
        try:
            reply = say_hello(hello_request(name, think_ms), timeout=DEADLINE_S)
        except grpc.RpcError as error:
            outcome, detail = outcome_of(error)
            tally.add(outcome, started, began_ms, detail)
            if outcome == "refused":
                time.sleep(PAUSE_AFTER_REFUSED_S)
            continue
        if reply == hello_reply(name):
            tally.add("ok", started, began_ms)
        else:
            detail = {"code": "OK", "detail": f"wrong reply of {len(reply)} bytes: {reply[:80]!r}"}
            tally.add("lost", started, began_ms, detail)


def channel_to(options, channel_options):
    if options.ca is None:
        return grpc.insecure_channel(options.address, options=channel_options)
    with open(options.ca, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    return grpc.secure_channel(options.address, credentials, options=channel_options)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("address")
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--think-ms-min", type=int, default=0)
    parser.add_argument("--think-ms-max", type=int, default=5)
    parser.add_argument("--name-bytes", type=int, default=0, help="pad the name to this length")
    parser.add_argument("--retries", choices=["transparent", "none"], default="transparent")
    parser.add_argument("--ca", help="speak TLS, and trust the certificates in this file")
    parser.add_argument("--health-checks", action="store_true")
    options = parser.parse_args()

    tally, stop = Tally(), threading.Event()
    channel_options = [*CHANNEL_OPTIONS, ("grpc.enable_retries", int(options.retries == "transparent"))]
    if options.health_checks:
        channel_options.append(("grpc.service_config", json.dumps(HEALTH_CHECKS)))
    with channel_to(options, channel_options) as channel:
        say_hello = channel.unary_unary(SAY_HELLO)
        callers = [
            threading.Thread(target=call_until, args=(stop, say_hello, tally, caller, options))
            for caller in range(options.callers)
        ]
        for caller in callers:
            caller.start()
        for _ in sys.stdin:
            print(json.dumps(tally.so_far()), flush=True)
        stop.set()
        for caller in callers:
            caller.join()
    print(json.dumps(tally.summary()), flush=True)


if __name__ == "__main__":
    main()
