"""Calls Greeter.SayHello without a pause, over one channel, and says what became of every call.

It runs as a child of restarts.py and is told what to do on standard input: for every line it answers with a
line of JSON that counts the calls so far; at the end of input its callers finish the call they are in,
and the last line it writes also has the times and examples of what was lost.

With `--health-checks` the channel calls only a server that says it is healthy. With `--mix` a caller keeps to one
of the four kinds of calls, and one in five sends 64 KiB at a time.

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

from greetings import GREETER, hello_reply, hello_request, many_hellos_request

# How many messages a stream has, and how long the large ones are.
MESSAGES = 20
LARGE = 64 << 10
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


def hellos(channel, mix):
    """What a caller may do: each returns whether the answer to a name is the right one."""
    unary = channel.unary_unary(GREETER + "SayHello")

    def say_hello(name, think_ms):
        return [unary(hello_request(name, think_ms), timeout=DEADLINE_S)] == [hello_reply(name)]

    if not mix:
        return [say_hello]
    from_server = channel.unary_stream(GREETER + "SayManyHellos")
    to_server = channel.stream_unary(GREETER + "GreetEverybody")
    both_ways = channel.stream_stream(GREETER + "Chat")

    def say_large_hello(name, think_ms):
        return say_hello(name.ljust(LARGE, "x"), think_ms)

    def say_many_hellos(name, _):
        replies = from_server(many_hellos_request(name, MESSAGES), timeout=DEADLINE_S)
        return list(replies) == [hello_reply(name)] * MESSAGES

    def greet_everybody(name, think_ms):
        requests = (hello_request(f"{name}{number}", think_ms) for number in range(MESSAGES))
        everybody = " and ".join(f"{name}{number}" for number in range(MESSAGES))
        return to_server(requests, timeout=DEADLINE_S) == hello_reply(everybody)

    def chat(name, think_ms):
        requests = (hello_request(f"{name}{number}", think_ms) for number in range(MESSAGES))
        replies = [hello_reply(f"{name}{number}") for number in range(MESSAGES)]
        return list(both_ways(requests, timeout=DEADLINE_S)) == replies

    return [say_hello, say_many_hellos, greet_everybody, chat, say_large_hello]


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


def call_until(stop, hello, tally, caller, options):
    for number in range(sys.maxsize):
        if stop.is_set():
            return
        name = f"caller {caller} call {number} ".ljust(options.name_bytes, "x")
        think_ms = random.randint(options.think_ms_min, options.think_ms_max)
        began_ms, started = round(time.time() * 1000, 1), time.monotonic()
        try:
            is_right = hello(name, think_ms)
        except grpc.RpcError as error:
            outcome, detail = outcome_of(error)
            tally.add(outcome, started, began_ms, detail)
            if outcome == "refused":
                time.sleep(PAUSE_AFTER_REFUSED_S)
            continue
        if is_right:
            tally.add("ok", started, began_ms)
        else:
            tally.add("lost", started, began_ms, {"code": "OK", "detail": f"wrong reply in {hello.__name__}"})


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
    parser.add_argument("--mix", action="store_true", help="all four kinds of calls, and large ones")
    options = parser.parse_args()

    tally, stop = Tally(), threading.Event()
    channel_options = [*CHANNEL_OPTIONS, ("grpc.enable_retries", int(options.retries == "transparent"))]
    if options.health_checks:
        channel_options.append(("grpc.service_config", json.dumps(HEALTH_CHECKS)))
    with channel_to(options, channel_options) as channel:
        kinds = hellos(channel, options.mix)
        callers = [
            threading.Thread(target=call_until, args=(stop, kinds[caller % len(kinds)], tally, caller, options))
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
