"""The scenarios of pauses.py: what pauses, when, and under whose calls.

In each, the pause is over before the grace period is, so every call has to land; but for those at the end, where a client
never comes back. There the question is what it costs the stop.
"""

import contextlib
import os
import select
import signal
import time

from hung_file import HungFile
from pauses_clients import LibraryCallers, RawCallers
from pauses_stage import LOOK_S, PATIENCE_S, CannotRun, Freezer, Skipped, Stage, await_condition, freeze, thaw

# A name that makes an answer of 3.9 MB, just below the limit of 4 MiB.
LARGE = 3_900_000
# A stream of 31 MB, more than the buffers of two kernels and two libraries hold.
PART, PARTS = 61_000, 512
# What a silent client may cost. And one that was used and is silent: 25 s since its last sign of life (`Plan::peer_silence`),
# and a second for the last words; no longer than the grace period.
AT_ONCE_S = 1.0
SILENT_LIMIT_S = 30 + 1
# The grace period and the force period of the default plan.
GRACE_S = 30 + 5 + 3


class Result:
    def __init__(self, stage, outcome, limit_s=None, gone=None, problems=()):
        self.stage, self.outcome, self.limit_s, self.problems = stage, outcome, limit_s, problems
        # How many calls cannot land because their clients never come back. Then a stop may be by force.
        self.gone = gone or 0
        self.may_be_forced = gone is not None


class Run:
    """What a scenario needs: the options, and somebody who cleans up."""

    def __init__(self, options, cleanup, name):
        self.options, self.cleanup, self._name = options, cleanup, name

    def stage(self, transport="tcp", prepare=None, **how):
        stage = Stage(self.options, self.cleanup, self._name, transport, **how)
        stage.start_server(prepare)
        return stage

    def callers(self, stage, client, count, used=True, **how):
        if client == "raw":
            callers = RawCallers(stage, count, **how)
            self.cleanup.callback(callers.close)
        else:
            callers = LibraryCallers(self.options, self.cleanup, stage, client, count, **how)
        callers.connect() if used else callers.open()
        return callers


def sizes(client, large):
    """How many connections, and calls on each: 120 calls, or 8 large ones."""
    if large:
        return (4, 2)
    return (30, 4) if client == "raw" else (6, 20)


def gap(run, client, by, gap_s, transport="tcp", delay_ms=0, large=False, before=False, unused=False):
    """The network holds its packets. The calls are sent in the gap; or `before` it, and the answers are held. Or the
    connections are `unused`: those calls are their first."""
    stage = run.stage(transport, wire=True, delay_ms=delay_ms)
    count, each = sizes(client, large)
    callers = run.callers(stage, client, count, **({"used": False} if unused else {}))
    length = LARGE if large else 0
    if before:
        callers.call(each, think_ms=1000, length=length)
        stage.await_running(min(16, count * each), callers.live)
    stage.wire.hold()
    stage.begin(by, again=client != "raw", meanwhile=callers.live)
    if not before:
        callers.call(each, length=length)
    callers.live(gap_s)
    stage.wire.release()
    return finish(stage, callers, client, by)


def finish(stage, callers, client, by):
    if client != "raw":
        # The channel has to be as good as before. Not earlier: calls that grpc-js has taken from the program, and not
        # written when it reads GOAWAY, it fails by itself, though no server has seen them.
        callers.await_end()
        callers.call(1)
    outcome = callers.finish()
    stage.end()
    return Result(stage, outcome)


def frozen_server(run, client, by, seconds, transport="tcp", freezer=False, large=False):
    """The server is frozen in its drain, with requests in its receive queues that were sent before GOAWAY was seen."""
    frost = run.cleanup.enter_context(contextlib.closing(Freezer())) if freezer else None
    stage = run.stage(transport, frost and frost.enter, wire=client != "raw")
    count, each = sizes(client, large)
    callers = run.callers(stage, client, count)
    stop = frost.freeze if frost else lambda: freeze(stage.first)
    if client == "raw":
        stage.begin(by)
        callers.await_goaway()
        stop()
        callers.set(reads=False)
        callers.call(each, length=LARGE if large else 0)
    else:
        stage.wire.hold()
        stage.begin(by, again=True)
        callers.call(each, length=LARGE if large else 0)
        stop()
        stage.wire.release()
        stage.await_received(count)
    time.sleep(seconds)
    frost.thaw() if frost else thaw(stage.first)
    return finish(stage, callers, client, by)


def frozen_before(run, client, seconds, transport="tcp"):
    """The server is frozen while it serves, gets requests and then SIGTERM, and finds all of it at once."""
    stage = run.stage(transport)
    count, each = sizes(client, False)
    callers = run.callers(stage, client, count)
    freeze(stage.process)
    callers.call(each)
    time.sleep(seconds)
    stage.signal(signal.SIGTERM)
    if client != "raw":
        stage.start_again()
    thaw(stage.first)
    return finish(stage, callers, client, "term")


def frozen_client(run, client, by, seconds, transport="tcp", large=False, stream=False):
    """The client is frozen while handlers run, and takes nothing of what they answer."""
    stage = run.stage(transport)
    count, each = (4, 1) if stream else sizes(client, large)
    callers = run.callers(stage, client, count, **({"window": None} if client == "raw" else {}))
    if stream:
        if client == "raw":
            callers.set(reads=False)
        callers.call(each, length=PART, answers=PARTS)
        if client == "raw":
            callers.await_sent()
        # grpcio takes no answer before it is asked for it, so the handlers wait. grpc-js takes all that comes.
        stage.await_running(1 if client == "node" else count * each)
    else:
        callers.call(each, think_ms=1000 if large else 300, length=LARGE if large else 0)
        stage.await_running(min(16, count * each), callers.live)
    callers.freeze()
    stage.begin(by, again=client != "raw")
    time.sleep(seconds)
    callers.thaw()
    return finish(stage, callers, client, by)


def taken_slowly(run, by, seconds, transport="tcp"):
    """One connection, four finished answers of 3.9 MB, and nobody who takes them for a while."""
    stage = run.stage(transport)
    callers = run.callers(stage, "raw", 1)
    callers.call(4, think_ms=500, length=LARGE)
    callers.await_sent()
    stage.await_running(4, callers.live)
    stage.begin(by)
    time.sleep(seconds)
    return finish(stage, callers, "raw", by)


def half_request(run, by, seconds, transport="tcp", length=2000):
    """Half of a request is sent before the signal, and its rest a while later. All that the server asks is acknowledged."""
    stage = run.stage(transport)
    callers = run.callers(stage, "raw", 30)
    callers.call(1, length=length, hold_back=length // 2)
    callers.await_sent()
    stage.begin(by, meanwhile=callers.live)
    callers.live(seconds)
    for call in callers.calls():
        call.send_rest()
    return finish(stage, callers, "raw", by)


def frozen_handshake(run, seconds, transport="tcp"):
    """The server is frozen when it has accepted 40 connections that have not said a word. On waking it has to serve them."""
    stage = run.stage(transport)
    callers = RawCallers(stage, 40)
    run.cleanup.callback(callers.close)
    stage.await_connections(40)
    freeze(stage.process)
    for connection in callers.connections:
        connection.open()
    callers.call(1)
    time.sleep(seconds)
    thaw(stage.process)
    callers.await_end()
    # What has not left because the server cut the connection before TLS was agreed upon is lost, too.
    outcome = callers.outcome(with_unsent=True)
    callers.close()
    stage.signal(signal.SIGTERM)
    stage.end()
    return Result(stage, outcome)


def long_rest(run, seconds, transport="tcp"):
    """Nothing happens at all for a while, and then there are clients. What is over is no time of theirs."""
    stage = run.stage(transport)
    time.sleep(seconds)
    callers = RawCallers(stage, 40)
    run.cleanup.callback(callers.close)
    for connection in callers.connections:
        connection.open()
    callers.call(1)
    callers.await_end()
    outcome = callers.outcome(with_unsent=True)
    callers.close()
    stage.signal(signal.SIGTERM)
    stage.end()
    return Result(stage, outcome)


def frozen_successor(run, client, seconds=None):
    """The new process is frozen when it has just begun to serve, for some seconds or for ever. Callers see nothing of it."""
    stage = run.stage("tcp")
    before = run.callers(stage, client, 4, deadline_s=20)
    stage.signal(signal.SIGUSR2)
    successor = int(stage.await_log(r"process (\d+) is ready")[1])
    run.cleanup.callback(end_at_once, successor)
    # In the middle of the time for which both serve.
    time.sleep(0.2)
    freeze(successor)
    before.call(5, think_ms=200)
    after = LibraryCallers(run.options, run.cleanup, stage, client, 4, deadline_s=20)
    after.call(5, think_ms=200)
    time.sleep(seconds or 5)
    if seconds:
        thaw(successor)
    before.call(5)
    after.call(5)
    outcome = before.finish() + after.finish()
    stage.end_all(successor)
    return Result(stage, outcome)


def hung_program(run, until_given_up):
    """The new process stands before its first instruction: its file does not answer. The stop does not wait for it, or the
    upgrade is given up and can be had later. When the file answers at last, nobody must serve who is not wanted."""
    stage = run.stage("tcp", own_program=True)
    callers = run.callers(stage, "python", 4)
    hung = hang(run, stage.program)
    stage.signal(signal.SIGUSR2)
    victim = os.pidfd_open(hung.await_victim(PATIENCE_S))
    run.cleanup.callback(os.close, victim)
    callers.call(5, think_ms=200)
    if until_given_up:
        # A line that is no information, and says "upgrade". The new process has 60 s to be ready.
        try:
            stage.await_log(r"(WARN|ERROR).*upgrade", patience_s=75)
        except CannotRun as error:
            hung.close()
            outcome = callers.finish()
            stage.end_all(int(stage.await_log(r"process (\d+) is ready")[1]))
            return Result(stage, outcome, problems=[f"the upgrade is not given up: {error}"])
        hung.close()
        await_end(victim)
        stage.upgrade()
        return finish(stage, callers, "python", "upgrade")
    outcome = callers.finish()
    stage.signal(signal.SIGTERM)
    stage.end()
    hung.close()
    problems = []
    try:
        await_end(victim, 10)
    except CannotRun:
        problems.append("the new process runs, though the service was stopped")
        signal.pidfd_send_signal(victim, signal.SIGKILL)
    return Result(stage, outcome, limit_s=10, problems=problems)


def hang(run, program):
    try:
        return run.cleanup.enter_context(contextlib.closing(HungFile(program)))
    except OSError as error:
        raise Skipped(f"a file that hangs needs root and fanotify: {error}") from error


def await_end(process, patience_s=PATIENCE_S):
    await_condition(lambda: select.select([process], [], [], 0)[0], "the new process ends", patience_s)


def end_at_once(process):
    with contextlib.suppress(OSError):
        os.kill(process, signal.SIGKILL)


def no_acknowledgement(run, seconds=25):
    """A client never acknowledges the PING behind GOAWAY, but goes on calling. It loses nothing, and delays nobody."""
    stage = run.stage("tcp")
    callers = run.callers(stage, "raw", 4)
    callers.set(acknowledges=False)
    stage.begin("term", meanwhile=callers.live)
    end = time.monotonic() + seconds
    while time.monotonic() < end and any(it.closed is None and len(it.goaways) < 2 for it in callers.connections):
        for connection in callers.connections:
            if connection.closed is None and len(connection.goaways) < 2:
                connection.call("/greeter.Greeter/SayHello", b"\n\1x", [b"\n\tHello, x!"])
        callers.live(0.05)
    outcome = callers.finish()
    stage.end()
    return Result(stage, outcome, limit_s=5)


def silent(run, how, transport="tcp"):
    """Twenty clients that say nothing of use, and never will."""
    stage = run.stage(transport)
    callers = RawCallers(stage, 20)
    run.cleanup.callback(callers.close)
    if how == "half preface":
        for connection in callers.connections:
            connection.open(12)
    elif how in ("settings", "settings acknowledged"):
        for connection in callers.connections:
            connection.open()
    elif how == "used":
        callers.connect()
    if how != "no bytes":
        callers.live(0.3)
    stage.await_connections(20, callers.live)
    lives = how in ("settings acknowledged", "used")
    meanwhile = callers.live if lives else lambda: time.sleep(LOOK_S)
    stage.begin("term", meanwhile=meanwhile)
    await_condition(lambda: stage.first in stage.exits, "the server ends", meanwhile=meanwhile)
    stage.end()
    return Result(stage, callers.outcome(), limit_s=AT_ONCE_S)


def idle(run, client, transport="tcp"):
    """Six channels of a library that were used and now wait."""
    stage = run.stage(transport)
    callers = run.callers(stage, client, 6)
    stage.begin("term")
    stage.end()
    return Result(stage, callers.finish(), limit_s=AT_ONCE_S)


def gone(run, how, transport="tcp"):
    """A client is frozen for ever, or its network is. What it costs is a limit of the plan."""
    stage = run.stage(transport, wire=how == "unreachable")
    callers = run.callers(stage, "raw", 4, **({"window": None} if how == "with an answer" else {}))
    limit_s, lost = SILENT_LIMIT_S, 0
    if how == "with an answer":
        # More than the buffers of both kernels hold.
        callers.call(4, think_ms=500, length=LARGE)
        callers.await_sent()
        stage.await_running(16, callers.live)
        limit_s, lost = GRACE_S, 16
    elif how == "with half a request":
        callers.call(1, length=2000, hold_back=1000)
        callers.await_sent()
        limit_s, lost = GRACE_S, 4
    elif how == "unreachable":
        # Else the server could not know that the first answers have come.
        stage.await_acknowledged()
        stage.wire.hold()
    stage.begin("term")
    stage.end()
    # What had come to its kernel by then is what it got.
    callers.set(reads=True, acknowledges=False)
    callers.live(0.5)
    return Result(stage, callers.outcome(), limit_s, lost)


class Scenario:
    """`alone`: nothing else may run meanwhile. `times`: one that fails by chance is run so often."""

    def __init__(self, name, function, *arguments, short=False, alone=False, times=1, **more):
        self.name, self.short, self.alone, self.times = name, short, alone, times
        self.needs_node = "node" in arguments
        self._function, self._arguments, self._more = function, arguments, more

    def __call__(self, run):
        return self._function(run, *self._arguments, **self._more)


def _scenarios():
    add = Scenario
    # A roaming radio link: the first point of what was seen.
    yield add("gap-0.4-term-python", gap, "python", "term", 0.4, short=True)
    yield add("gap-0.6-term-raw", gap, "raw", "term", 0.6)
    for client in ("python", "node", "raw"):
        yield add(f"gap-1-term-{client}", gap, client, "term", 1, short=True)
        yield add(f"gap-3-term-{client}", gap, client, "term", 3)
        yield add(f"gap-7-term-{client}", gap, client, "term", 7)
        yield add(f"gap-20-term-{client}", gap, client, "term", 20)
        yield add(f"gap-7-upgrade-{client}", gap, client, "upgrade", 7, short=client == "python")
        yield add(f"gap-20-upgrade-{client}", gap, client, "upgrade", 20)
        yield add(f"gap-2-term-300ms-{client}", gap, client, "term", 2, delay_ms=300, short=client == "python")
        yield add(f"gap-3-term-tls-{client}", gap, client, "term", 3, "tls")
        yield add(f"gap-7-upgrade-tls-{client}", gap, client, "upgrade", 7, "tls")
        yield add(f"gap-3-term-large-{client}", gap, client, "term", 3, large=True)
        yield add(f"gap-8-term-answers-{client}", gap, client, "term", 8, large=True, before=True)
        yield add(f"gap-8-upgrade-answers-{client}", gap, client, "upgrade", 8, large=True, before=True)
    yield add("gap-3-term-unused-raw", gap, "raw", "term", 3, unused=True)
    yield add("gap-20-term-tls-python", gap, "python", "term", 20, "tls")
    yield add("gap-8-term-answers-tls-python", gap, "python", "term", 8, "tls", large=True, before=True)

    # A frozen server: a snapshot, `docker pause`, a debugger. Which of its threads wakes first is up to the kernel, and
    # decides what is looked at first, the clock or the receive queues.
    often = {"times": 4}
    for way in ("tcp", "unix", "tls"):
        yield add(f"server-1-term-{way}-raw", frozen_server, "raw", "term", 1, way, short=True, **often)
        yield add(f"server-11-term-{way}-raw", frozen_server, "raw", "term", 11, way)
        yield add(f"server-7-upgrade-{way}-raw", frozen_server, "raw", "upgrade", 7, way, **often)
        yield add(f"server-3-before-{way}-python", frozen_before, "python", 3, way)
        yield add(f"server-3-before-{way}-raw", frozen_before, "raw", 3, way)
        yield add(f"server-11-handshake-{way}", frozen_handshake, 11, way, short=way == "tcp")
        yield add(f"freezer-3-term-{way}-raw", frozen_server, "raw", "term", 3, way, freezer=True, **often)
    yield add("freezer-1-term-tcp-raw", frozen_server, "raw", "term", 1, freezer=True, short=True, **often)
    yield add("server-3-term-large-raw", frozen_server, "raw", "term", 3, large=True, **often)
    for client in ("python", "node"):
        yield add(f"server-1-term-tcp-{client}", frozen_server, client, "term", 1, **often)
        yield add(f"server-3-term-tls-{client}", frozen_server, client, "term", 3, "tls", **often)
        yield add(f"server-11-term-tcp-{client}", frozen_server, client, "term", 11)
        yield add(f"server-3-upgrade-tcp-{client}", frozen_server, client, "upgrade", 3, **often)
        yield add(f"freezer-3-term-tcp-{client}", frozen_server, client, "term", 3, freezer=True, **often)

    # A frozen client, and one that takes nothing.
    for client in ("python", "node", "raw"):
        for seconds in (3, 8, 20):
            yield add(f"client-{seconds}-term-large-{client}", frozen_client, client, "term", seconds, large=True)
        yield add(f"client-3-term-{client}", frozen_client, client, "term", 3, short=True)
        yield add(f"client-20-term-{client}", frozen_client, client, "term", 20)
        yield add(f"client-8-term-unix-large-{client}", frozen_client, client, "term", 8, "unix", large=True)
        yield add(f"client-8-term-tls-large-{client}", frozen_client, client, "term", 8, "tls", large=True)
        yield add(f"client-8-upgrade-large-{client}", frozen_client, client, "upgrade", 8, large=True)
        yield add(f"client-20-upgrade-{client}", frozen_client, client, "upgrade", 20)
        yield add(f"client-8-term-stream-{client}", frozen_client, client, "term", 8, stream=True)
    yield add("taken-8-term-tcp", taken_slowly, "term", 8, short=True)
    yield add("taken-8-term-unix", taken_slowly, "term", 8, "unix")
    yield add("taken-8-term-tls", taken_slowly, "term", 8, "tls")
    yield add("taken-20-upgrade-tcp", taken_slowly, "upgrade", 20)
    for way in ("tcp", "unix", "tls"):
        yield add(f"half-1.5-term-{way}", half_request, "term", 1.5, way, short=way == "tcp")
        yield add(f"half-5-term-{way}", half_request, "term", 5, way)
    yield add("half-8-upgrade-tcp", half_request, "upgrade", 8)
    yield add("half-20-term-tcp", half_request, "term", 20)

    for way in ("tcp", "unix", "tls"):
        yield add(f"rest-25-{way}", long_rest, 25, way, short=way == "tcp")

    # A frozen successor.
    for client in ("python", "node"):
        yield add(f"successor-3-{client}", frozen_successor, client, 3)
        yield add(f"successor-for-ever-{client}", frozen_successor, client)

    yield add("successor-hung-file-term", hung_program, False)
    yield add("successor-hung-file-given-up", hung_program, True)

    # What a client costs that says nothing.
    yield add("no-acknowledgement", no_acknowledgement, short=True)
    for how in ("no bytes", "half preface", "settings", "settings acknowledged", "used"):
        for way in ("tcp", "unix", "tls"):
            name = f"silent-{how.replace(' ', '-')}-{way}"
            yield add(name, silent, how, way, short=way == "tcp", alone=True)
    for client in ("python", "node"):
        for way in ("tcp", "unix", "tls"):
            yield add(f"idle-{way}-{client}", idle, client, way, alone=True)
    for how in ("used", "unreachable", "with an answer", "with half a request"):
        yield add(f"gone-{how.replace(' ', '-')}", gone, how)


SCENARIOS = {scenario.name: scenario for scenario in _scenarios()}
