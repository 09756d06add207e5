"""The callers of pauses.py's scenarios, with one face: those of libraries, and those that send frames.

`connect` makes a call on each connection, so that each is one that was used. `call` begins calls, `live` lets time pass,
`finish` waits for all of them and says what became of them.
"""

import collections
import json
import os
import pathlib
import select
import subprocess
import sys
import time

from frames import Connection, turn
from greetings import GREETER, hello_reply, hello_request, many_hellos_request
from pauses_stage import LOOK_S, PATIENCE_S, CannotRun, await_condition, freeze, thaw
from restarts import prepare_in

HERE = pathlib.Path(__file__).parent


class Outcome:
    """`excluded` calls are those of which the server has said that it did not act on them."""

    def __init__(self, calls=0, landed=0, excluded=0, problems=()):
        self.calls, self.landed, self.excluded, self.problems = calls, landed, excluded, collections.Counter(problems)

    @property
    def lost(self):
        return self.calls - self.landed - self.excluded

    def __add__(self, other):
        return Outcome(
            self.calls + other.calls,
            self.landed + other.landed,
            self.excluded + other.excluded,
            (self.problems + other.problems).elements(),
        )


class LibraryCallers:
    """Those of grpcio ("python") or grpc-js ("node"), in a process of their own."""

    def __init__(self, options, cleanup, stage, kind, count, deadline_s=80):
        program = {
            "python": [sys.executable, "-B", HERE / "pauses_callers.py"],
            "node": [options.node, HERE / "pauses_callers.mjs"],
        }[kind]
        ca = [f"--ca={stage.certificate}"] if stage.certificate else []
        self._child = subprocess.Popen(
            [*program, stage.address, f"--channels={count}", f"--deadline-s={deadline_s}", *ca],
            preexec_fn=prepare_in(stage.namespace_of_client),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "TOUCHDOWN_NODE_MODULES": options.node_modules, "NODE_NO_WARNINGS": "1"},
        )
        self.count = count
        cleanup.callback(self._close)

    def _ask(self, **command):
        self._child.stdin.write(json.dumps(command) + "\n")
        ready, _, _ = select.select([self._child.stdout], [], [], PATIENCE_S + 20)
        line = self._child.stdout.readline() if ready else ""
        if not line:
            raise CannotRun(f"the callers say nothing, exit code {self._child.poll()}")
        return json.loads(line)

    def connect(self):
        said = self._ask(do="connect")
        if said["problems"]:
            raise CannotRun(f"the first calls fail: {said['problems']}")

    def call(self, each, think_ms=0, length=0, answers=1):
        self._ask(do="call", each=each, think_ms=think_ms, bytes=length, answers=answers)

    def live(self, seconds=LOOK_S):
        time.sleep(seconds)

    def freeze(self):
        freeze(self._child.pid)

    def thaw(self):
        thaw(self._child.pid)

    def await_end(self):
        self._ask(do="wait")

    def finish(self):
        said = self._ask(do="finish")
        return Outcome(said["calls"], said["calls"] - len(said["problems"]), 0, said["problems"])

    def _close(self):
        self._child.kill()
        self._child.wait()


class RawCallers:
    """Connections of frames.py, which live only while this program does nothing else but `live` or `finish`."""

    def __init__(self, stage, count, **how):
        self.connections = [Connection(it, **how) for it in stage.connect(count)]
        self.count = count

    def open(self):
        """Agrees upon settings, and makes no call."""
        for connection in self.connections:
            connection.open()
        agreed = lambda: all(it.is_agreed for it in self.connections)
        await_condition(agreed, "the settings are agreed upon", meanwhile=self.live)

    def connect(self):
        for connection in self.connections:
            connection.open()
            connection.call(GREETER + "SayHello", hello_request("first", 0), [hello_reply("first")])
        await_condition(lambda: all(it.landed for it in self.calls()), "the first calls land", meanwhile=self.live)

    def calls(self):
        return [call for connection in self.connections for call in connection.calls]

    def call(self, each, think_ms=0, length=0, answers=1, hold_back=0):
        """Begins calls, and gives them to the kernel as far as the server has room for them."""
        for place, connection in enumerate(self.connections):
            for number in range(each):
                name = f"connection {place} call {number} ".ljust(length, "x")
                if answers > 1:
                    method, request = "SayManyHellos", many_hellos_request(name, answers)
                else:
                    method, request = "SayHello", hello_request(name, think_ms)
                connection.call(GREETER + method, request, [hello_reply(name)] * answers, hold_back)
        self.live(0)

    def await_sent(self):
        await_condition(lambda: all(it.is_flushed for it in self.connections), "all is sent", meanwhile=self.live)

    def await_goaway(self):
        """Waits until each connection was told to go, and has not acknowledged it."""
        self.set(acknowledges=False)
        told = lambda: all(it.goaways and it.pings for it in self.connections)
        await_condition(told, "the server tells all to go", meanwhile=self.live)

    def set(self, **what):
        for connection in self.connections:
            for name, value in what.items():
                setattr(connection, name, value)

    def live(self, seconds=LOOK_S):
        end = time.monotonic() + seconds
        while True:
            turn(self.connections, max(0.0, min(end - time.monotonic(), 0.05)))
            if time.monotonic() >= end:
                return

    def freeze(self):
        """Nothing to do: it is frozen unless it is told to live."""

    def thaw(self):
        self.set(reads=True, acknowledges=True)

    def await_end(self):
        """Waits until nothing more can become of any call."""
        self.thaw()
        end = time.monotonic() + PATIENCE_S
        is_over = lambda: all(it.is_over(call) for it in self.connections for call in it.calls)
        while not is_over() and time.monotonic() < end:
            self.live()

    def finish(self):
        self.await_end()
        outcome = self.outcome()
        self.close()
        return outcome

    def outcome(self, with_unsent=False):
        """Calls that have never left are none, except `with_unsent`: then they are lost."""
        became = collections.Counter()
        problems = []
        for connection in self.connections:
            for call in connection.calls:
                fate = connection.became_of(call)
                became[fate] += 1
                if fate == "lost" or fate == "unsent" and with_unsent:
                    goaway = f"GOAWAY {connection.goaways[-1]}" if connection.goaways else "no GOAWAY"
                    status = call.headers.get("grpc-status", "none")
                    got = f"{goaway}; {len(call.received)} bytes, status {status}"
                    problems.append(f"{fate}: connection closed: {connection.closed}; {got}")
        landed, excluded = became["landed"], became["excluded"]
        return Outcome(landed + excluded + len(problems), landed, excluded, problems)

    def close(self):
        for connection in self.connections:
            connection.close()
