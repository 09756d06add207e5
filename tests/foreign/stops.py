"""What becomes of each call when its server stops, as grpcio sees it: the rows of the table in docs/stopping-well.md.

    stops.py SERVER SLACK_MS

SERVER is the program `stops` of tests/interop. A call may end SLACK_MS after its time: 50 on a machine that does nothing
else, more on others.
"""

import atexit
import json
import queue
import signal
import subprocess
import sys
import threading
import time

import grpc

from cases import TIMEOUT_S, check, check_equal

GRACE_S = 2.0
SLACK_S = int(sys.argv[2]) / 1000


class Server:
    def __init__(self, workers=16, address="127.0.0.1:0", grace_s=GRACE_S):
        command = [sys.argv[1], address, str(workers), str(int(grace_s * 1000))]
        self._child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        # Whatever becomes of the test, no server outlives it.
        atexit.register(self._child.kill)
        self._lines = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.address = self.line()

    def _listen(self):
        for line in self._child.stdout:
            self._lines.put((time.monotonic(), line.strip()))

    def line(self):
        return self._lines.get(timeout=TIMEOUT_S)[1]

    def wait_for(self, expected, count=1):
        while count > 0:
            if self.line() == expected:
                count -= 1

    def stop(self):
        """Sends SIGTERM. Returns when."""
        self._child.send_signal(signal.SIGTERM)
        return time.monotonic()

    def end(self):
        """Waits for the end. Returns the lines with their times, the report and the exit code."""
        code = self._child.wait(TIMEOUT_S)
        lines = []
        while not lines or not lines[-1][1].startswith("{"):
            lines.append(self._lines.get(timeout=TIMEOUT_S))
        return lines[:-1], json.loads(lines[-1][1]), code


def text(value):
    """A google.protobuf.StringValue."""
    data = value.encode()
    return bytes([10, len(data)]) + data


class Calls:
    """Calls that note how and when they ended."""

    def __init__(self, server, channel):
        self._server = server
        self._channel = channel
        self._begun = 0
        self.ends = {}
        self._all_ended = threading.Condition()

    def begin(self, method, request, wait=True, **options):
        path = f"/test.Stops/{method}"
        key = f"{method} {request}"
        self._begun += 1
        if method == "Stream":
            call = self._channel.unary_stream(path)(text(request), **options)
            replies = []

            def read():
                try:
                    replies.extend(call)
                except grpc.RpcError:
                    pass
                self._ended(key, call, replies)

            threading.Thread(target=read, daemon=True).start()
        else:
            call = self._channel.unary_unary(path).future(text(request), **options)
            call.add_done_callback(lambda it: self._ended(key, it, []))
        if wait:
            self._server.wait_for(f"begun {path} {request}")
        return call

    def _ended(self, key, call, replies):
        trailers = {name: value for name, value in call.trailing_metadata() or ()}
        with self._all_ended:
            self.ends[key] = (time.monotonic(), call.code().name, trailers.get("grpc-retry-pushback-ms"), replies)
            self._all_ended.notify_all()

    def wait(self):
        with self._all_ended:
            check(self._all_ended.wait_for(lambda: len(self.ends) == self._begun, TIMEOUT_S), self.ends)


def check_ends(ends, began, expected):
    """`expected` has for each call: when the server ends it, in seconds, if it does; its status; the sign of the advice
    on retries, if there is any."""
    for key, (after_s, code, pushback) in expected.items():
        at, seen_code, seen_pushback, _ = ends[key]
        check_equal((key, seen_code), (key, code))
        if after_s is not None:
            late_s = at - began - after_s
            check(-0.01 <= late_s <= SLACK_S, key, f"{late_s * 1000:.0f} ms from its time")
        if pushback is None:
            check(seen_pushback is None, key, seen_pushback)
        else:
            check((int(seen_pushback) < 0) == (pushback < 0), key, seen_pushback)
    check_equal(set(ends), set(expected))


def eight_calls_of_mixed_policy():
    server = Server()
    with grpc.insecure_channel(server.address) as channel:
        calls = Calls(server, channel)
        calls.begin("Finish", "for 1500")
        calls.begin("Finish", "until told")
        calls.begin("Finish", "for ever")
        leaver = calls.begin("Finish", "until left")
        calls.begin("CutEarly", "for 500")
        calls.begin("CutEarly", "until told")
        calls.begin("Stream", "until draining")
        calls.begin("Stream", "idle")
        began = server.stop()
        time.sleep(began + 0.2 - time.monotonic())
        leaver.cancel()
        calls.wait()
    lines, report, code = server.end()
    goodbye = calls.ends["Stream until draining"][3]
    check_equal(goodbye, [text("goodbye")])
    check_ends(
        calls.ends,
        began,
        {
            "Finish for 1500": (None, "OK", None),
            # What a handler says in time is its answer, even if it was told to stop.
            "Finish until told": (GRACE_S, "OK", None),
            # It is in the middle of something that must not be done twice.
            "Finish for ever": (GRACE_S + GRACE_S / 4, "UNAVAILABLE", -1),
            "Finish until left": (0.2, "CANCELLED", None),
            "CutEarly for 500": (None, "OK", None),
            "CutEarly until told": (GRACE_S / 2, "UNAVAILABLE", 1),
            "Stream until draining": (0, "OK", None),
            "Stream idle": (GRACE_S / 4, "UNAVAILABLE", 1),
        },
    )
    ends = {line: at - began for at, line in lines}
    # The handlers are told no later than their callers.
    for method, request, at_s in (
        ("Finish", "until told", GRACE_S),
        ("Finish", "until left", 0.2),
        ("CutEarly", "until told", GRACE_S / 2),
    ):
        late_s = ends[f"ended /test.Stops/{method} {request}"] - at_s
        check(abs(late_s) <= SLACK_S, method, request, late_s)
    check_equal(
        report["calls"],
        {"completed": 3, "refused": 0, "caller_left": 1, "undelivered": 0, "cut": 2, "told_to_stop": 1, "abandoned": 1},
    )
    check_equal((code, report["exit_code"]), (3, 3))
    check(any("/test.Stops/Finish" in name for name in report["abandoned"]), report["abandoned"])


# A client with one call, for a process of its own.
CALLER = """
import sys
import grpc

grpc.insecure_channel(sys.argv[1]).unary_unary("/test.Stops/Finish")(bytes.fromhex(sys.argv[2]))
"""


def busy_stream_and_broken_connection():
    """A stream that says no goodbye; and a client that is gone in the middle of its call."""
    server = Server()
    client = subprocess.Popen([sys.executable, "-c", CALLER, server.address, text("until left").hex()])
    server.wait_for("begun /test.Stops/Finish until left")
    with grpc.insecure_channel(server.address) as channel:
        calls = Calls(server, channel)
        calls.begin("Stream", "for 1000")
        began = server.stop()
        time.sleep(began + 0.2 - time.monotonic())
        client.kill()
        calls.wait()
    client.wait()
    lines, report, code = server.end()
    check_ends(calls.ends, began, {"Stream for 1000": (GRACE_S / 4, "UNAVAILABLE", 1)})
    ends = {line: at - began for at, line in lines}
    late_s = ends["ended /test.Stops/Finish until left"] - 0.2
    check(abs(late_s) <= SLACK_S, late_s)
    check_equal((code, report["calls"]["cut"], report["calls"]["caller_left"]), (0, 1, 1))


def backlog_and_deadline():
    """One worker, and it is busy for 300 ms when the server is told to stop."""
    server = Server(workers=1)
    with grpc.insecure_channel(server.address) as channel:
        calls = Calls(server, channel)
        calls.begin("Finish", "for 300")
        calls.begin("Finish", "for 10", wait=False)
        calls.begin("Finish", "for 11", wait=False, timeout=0.1)
        # Half of the grace period is what it takes, and more than half of it is left.
        calls.begin("Slow", "for 12", wait=False)
        # The calls were sent in this order on one connection.
        check_equal(channel.unary_unary("/test.Stops/None").future(b"").code(), grpc.StatusCode.UNIMPLEMENTED)
        began = server.stop()
        calls.wait()
    lines, report, code = server.end()
    check_ends(
        calls.ends,
        began,
        {
            "Finish for 300": (None, "OK", None),
            "Finish for 10": (None, "OK", None),
            "Finish for 11": (None, "DEADLINE_EXCEEDED", None),
            "Slow for 12": (None, "OK", None),
        },
    )
    check(not any("for 11" in line for _, line in lines), lines)
    check_equal((code, report["calls"]["completed"]), (0, 3))


def too_late_to_begin():
    """One worker, and it is busy for so long that too little of the grace period is left."""
    server = Server(workers=1)
    with grpc.insecure_channel(server.address) as channel:
        calls = Calls(server, channel)
        calls.begin("Finish", "for 1300")
        calls.begin("Slow", "for 12", wait=False)
        check_equal(channel.unary_unary("/test.Stops/None").future(b"").code(), grpc.StatusCode.UNIMPLEMENTED)
        began = server.stop()
        calls.wait()
    lines, report, code = server.end()
    check_ends(
        calls.ends, began, {"Finish for 1300": (None, "OK", None), "Slow for 12": (None, "UNAVAILABLE", 1)}
    )
    check(not any("Slow" in line for _, line in lines), lines)
    check_equal((code, report["calls"]["completed"]), (0, 1))


def what_is_cut_is_retried_elsewhere():
    """A client with a standard retry policy, two servers, and one of them stops with calls in flight."""
    going, staying = Server(), Server()
    config = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{"service": "test.Stops"}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.1s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
    addresses = ",".join(server.address for server in (going, staying))
    options = [("grpc.service_config", json.dumps(config))]
    with grpc.insecure_channel(f"ipv4:{addresses}", options) as channel:
        grpc.channel_ready_future(channel).result(TIMEOUT_S)
        calls = Calls(going, channel)
        for number in range(16):
            # As long as it takes to be cut at one server, and to end at the other.
            calls.begin("CutEarly", f"for {1800 + number}", wait=False)
        time.sleep(0.2)  # for all of them to have begun; those that have not are not cut
        going.stop()
        calls.wait()
    _, report, code = going.end()
    codes = [end[1] for end in calls.ends.values()]
    check_equal(codes, ["OK"] * 16)
    check(report["calls"]["cut"] > 0, report)
    check_equal(code, 0)
    staying.stop()
    check_equal(staying.end()[2], 0)


CASES = (
    eight_calls_of_mixed_policy,
    busy_stream_and_broken_connection,
    backlog_and_deadline,
    too_late_to_begin,
    what_is_cut_is_retried_elsewhere,
)


def main():
    for function in CASES:
        function()
        print("passed", function.__name__, flush=True)


if __name__ == "__main__":
    main()
