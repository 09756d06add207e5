"""Restarts a server under load again and again, and fails if one call is lost.

A client (restart.py or restart.mjs) calls without a pause, over one channel, while the server gets SIGTERM,
exits, and starts again at once on the same port. A call counts as lost if it ends in any way but with its
own reply, or with "connection refused".

With `--tls` they speak TLS. With `--health-checks` the Python client calls only a server that says it is healthy.

With `--by upgrade` the server gets SIGUSR2 instead: it starts a new one, which takes over its listening socket.
Then nothing may be refused, either.

With `--mix` the Python client makes calls of all four kinds, and some of 64 KiB. With `--cpus` and `--memory-mb` the server
runs on a small machine; then the test fails, too, if the kernel kills a process for want of memory.

The clients have no retry policy. Their transparent retries, which are on unless a program turns them off,
send a call again only if no server can have acted on it: it was never written to the socket, or GOAWAY
excluded it. With `--retries none` they are off, and the wire (wire.py) decides what is lost: then no
request that was sent may stay unanswered.

Exit code: 0 if no call was lost and every server exited with 0; 1 if not; 2 if the test could not run.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

import network
import wire
from small_machine import SmallMachine

HERE = pathlib.Path(__file__).parent
# Longer than the server's own plan for a stop and than the deadline of a call.
PATIENCE_S = 60


class CannotRun(Exception):
    """Something stood in the way of the test itself."""


class Process:
    """A child that ends with this program, however that ends."""

    def __init__(self, command, prepare, **streams):
        self._child = subprocess.Popen(
            command, preexec_fn=prepare, stdout=subprocess.PIPE, text=True, bufsize=1, **streams
        )

    def read_line(self):
        """The next line of its output, for a program that writes no more than it is asked for."""
        ready, _, _ = select.select([self._child.stdout], [], [], PATIENCE_S)
        line = self._child.stdout.readline() if ready else ""
        if not line:
            raise CannotRun(f"{self._child.args[0]} said nothing, exit code {self._child.poll()}")
        return line.strip()

    def ask(self):
        with contextlib.suppress(BrokenPipeError):  # read_line says what happened
            self._child.stdin.write("\n")
        return json.loads(self.read_line())

    def close_input(self):
        self._child.stdin.close()

    @property
    def id(self):
        return self._child.pid

    def signal(self, number):
        self._child.send_signal(number)

    def await_end_of(self, what):
        """Waits for a process that is our child; returns its exit code."""
        # Tells the end at once, where Popen.wait would look only now and then.
        end = os.pidfd_open(what)
        try:
            ready, _, _ = select.select([end], [], [], PATIENCE_S)
            if not ready:
                raise CannotRun(f"process {what} did not end within {PATIENCE_S} s")
        finally:
            os.close(end)
        if what == self._child.pid:
            return self._child.wait()
        return os.waitstatus_to_exitcode(os.waitpid(what, 0)[1])

    def wait(self):
        return self.await_end_of(self._child.pid)

    def close(self):
        self._child.kill()
        self._child.wait()


class Stage:
    """The two programs, and the network between them."""

    def __init__(self, options, cleanup, server_log):
        self._options = options
        self._cleanup = cleanup
        self._server_log = server_log
        self._server_namespace = self._client_namespace = None
        self._interface, self._packet_length = "lo", 70000
        if options.delay_ms > 0:
            slow = cleanup.enter_context(contextlib.closing(slow_network(options.delay_ms)))
            self._server_namespace, self._client_namespace = slow.server, slow.client
            self._interface, self._packet_length = network.INTERFACE, 2000
            self.port = 50051
            self.address = f"{network.SERVER_ADDRESS}:{self.port}"
        else:
            self.port = free_port()
            self.address = f"127.0.0.1:{self.port}"
        self.machine = None
        if options.memory_mb:
            self.machine = small_machine(options.memory_mb)
            cleanup.callback(self.machine.close)
        self._certificate = []
        if options.tls:
            folder = pathlib.Path(cleanup.enter_context(tempfile.TemporaryDirectory()))
            self._certificate = make_certificate(folder, self.address.partition(":")[0])

    def start_server(self):
        certificate = ["--tls", *self._certificate] if self._certificate else []
        command = [self._options.server, *certificate, self.address]
        prepare = prepare_in(self._server_namespace, self._options.cpus, self.machine)
        server = Process(command, prepare, stderr=self._server_log)
        self._cleanup.callback(server.close)
        line = server.read_line()
        if line != f"listening at {self.address}":
            raise CannotRun(f"the server says {line!r}")
        return server

    def start_client(self):
        options = self._options
        program = {
            "python": [sys.executable, HERE / "restart.py"],
            "node": [options.node, HERE / "restart.mjs"],
        }[options.client]
        arguments = [
            self.address,
            f"--callers={options.callers}",
            f"--think-ms-min={options.think_ms[0]}",
            f"--think-ms-max={options.think_ms[1]}",
            f"--name-bytes={options.name_bytes}",
            f"--retries={options.retries}",
            *(["--health-checks"] if options.health_checks else []),
            *(["--mix"] if options.mix else []),
            *(f"--ca={file}" for file in self._certificate[:1]),
        ]
        environment = {**os.environ, "TOUCHDOWN_NODE_MODULES": options.node_modules}
        prepare = prepare_in(self._client_namespace)
        client = Process([*program, *arguments], prepare, stdin=subprocess.PIPE, env=environment)
        self._cleanup.callback(client.close)
        return client

    def start_capture(self, path):
        try:
            prepare = prepare_in(self._client_namespace)
            capture = wire.Capture(self._interface, self._packet_length, self.port, path, prepare)
        except OSError as error:
            raise CannotRun(f"looking at the wire needs root and tcpdump: {error}") from error
        self._cleanup.callback(capture.close)
        return capture


def prepare_in(namespace, cpus=None, machine=None):
    """For `preexec_fn`: what every child does first."""

    def prepare():
        network.die_with_parent()
        if namespace is not None:
            network.enter(namespace)
        if cpus is not None:
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cpus])
        if machine is not None:
            machine.enter()

    return prepare


def small_machine(memory_mb):
    try:
        return SmallMachine(memory_mb)
    except OSError as error:
        raise CannotRun(f"a limit on memory needs root and cgroups: {error}") from error


def slow_network(delay_ms):
    try:
        return network.SlowNetwork(delay_ms)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotRun(f"a network with delay needs root, `ip` and /dev/net/tun: {error}") from error


def make_certificate(folder, host):
    """A certificate for this address, signed by itself, and its key; returns the two files."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=greeter", "-addext", f"subjectAltName=IP:{host}", "-days", "2"]
    try:
        subprocess.run([*command, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CannotRun(f"a certificate needs openssl: {error}") from error
    return [certificate, key]


def free_port():
    """A port that no outgoing connection takes while the server is down: below the ephemeral range."""
    for port in random.sample(range(20000, 32768), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise CannotRun("no free port")


def wait_for_calls(client):
    """Waits for a call to succeed from now on; returns the counts."""
    before = client.ask()
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        counts = client.ask()
        if counts["ok"] > before["ok"]:
            return counts
        time.sleep(0.005)
    raise CannotRun("no call succeeds")


def stop_server(server):
    """Returns the exit code and the milliseconds from SIGTERM to exit."""
    begin = time.monotonic()
    server.signal(signal.SIGTERM)
    exit_code = server.wait()
    return exit_code, (time.monotonic() - begin) * 1000


class Upgraded:
    """A server that replaces itself; the processes that it has been speak on one pipe."""

    def __init__(self, first, cleanup):
        self._first, self._id = first, first.id
        cleanup.callback(self._kill)

    def replace(self):
        """Returns the exit code of the old process and the milliseconds from SIGUSR2 to its exit."""
        begin = time.monotonic()
        os.kill(self._id, signal.SIGUSR2)
        listens = self._first.read_line()
        if not listens.startswith("listening at "):
            raise CannotRun(f"the new server says {listens!r}")
        others = children()
        exit_code = self._first.await_end_of(self._id)
        took_ms = (time.monotonic() - begin) * 1000
        [self._id] = children() - others
        return exit_code, took_ms

    def stop(self):
        begin = time.monotonic()
        os.kill(self._id, signal.SIGTERM)
        return self._first.await_end_of(self._id), (time.monotonic() - begin) * 1000

    def _kill(self):
        with contextlib.suppress(OSError):
            os.kill(self._id, signal.SIGKILL)


def children():
    return set(map(int, pathlib.Path("/proc/thread-self/children").read_text().split()))


def run(options, cleanup, server_log):
    """Returns whether everything went well."""
    stage = Stage(options, cleanup, server_log)
    capture_path = options.capture
    if options.retries == "none" and not capture_path:
        capture_path = cleanup.enter_context(tempfile.TemporaryDirectory()) + "/packets"
    capture = stage.start_capture(capture_path) if capture_path else None

    server, client = stage.start_server(), stage.start_client()
    by_upgrade = options.by == "upgrade"
    if by_upgrade:
        network.adopt_orphans()
        server = Upgraded(server, cleanup)
    exits, before = [], {"ok": 0, "refused": 0, "lost": 0}
    for restart in range(1, options.restarts + 1):
        wait_for_calls(client)
        time.sleep(random.uniform(*options.pause_ms) / 1000)
        exit_code, took_ms = server.replace() if by_upgrade else stop_server(server)
        exits.append((exit_code, took_ms))
        if not by_upgrade:
            server = stage.start_server()
        counts = wait_for_calls(client)
        change = ", ".join(f"{counts[kind] - before[kind]} {kind}" for kind in ("ok", "refused", "lost"))
        print(f"restart {restart:3}: exit {exit_code} after {took_ms:.1f} ms; {change}", flush=True)
        before = counts
    client.close_input()
    summary = json.loads(client.read_line())
    times_ms = [took_ms for _, took_ms in exits]
    exits.append(server.stop() if by_upgrade else stop_server(server))

    print(json.dumps(summary))
    lost, lost_on_wire = summary["lost"], None
    if capture is not None:
        capture.close()
        lost_on_wire = lost_on_the_wire(capture_path, stage.port, summary["ok"])
        if options.retries == "none":
            lost = lost_on_wire
    bad_exits = [exit_code for exit_code, _ in exits if exit_code != 0]
    lost += summary["refused"] if by_upgrade else 0
    killed = stage.machine.killed() if stage.machine else 0
    well = summary["ok"] > 0 and lost == 0 and not bad_exits and not killed
    if stage.machine:
        peak = stage.machine.peak_mb()
        peak = "not known" if peak is None else f"{peak:.1f} MiB, page cache included"
        print(f"memory: {options.memory_mb} MiB, peak {peak}; {killed} killed for want of it")
    print_verdict(options, summary, lost_on_wire, times_ms, bad_exits, well)
    return well


def print_verdict(options, summary, lost_on_wire, times_ms, bad_exits, well):
    handlers = "handlers of {} to {} ms".format(*options.think_ms)
    size = f", names of {options.name_bytes} bytes" if options.name_bytes else ""
    print(
        f"{options.client}, {options.restarts} {options.by}s, {options.callers} callers, {handlers}, "
        f"delay {options.delay_ms:g} ms, {options.retries} retries{size}"
    )
    outcomes = f"{summary['ok']} ok, {summary['refused']} refused, {summary['lost']} lost"
    wire_says = "" if lost_on_wire is None else f" by the client's word, {lost_on_wire} on the wire"
    print(f"{summary['calls']} calls: {outcomes}{wire_says}")
    signal_name = "SIGUSR2" if options.by == "upgrade" else "SIGTERM"
    print(f"{signal_name} to exit: median {statistics.median(times_ms):.1f} ms, longest {max(times_ms):.1f} ms")
    if bad_exits:
        print(f"exit codes that should be 0: {bad_exits}")
    print("PASSED" if well else "FAILED")


def lost_on_the_wire(path, port, ok):
    """Requests that got no answer, or one that the client does not call its reply."""
    connections = wire.read(path, port)
    for connection in connections:
        if connection.unanswered:
            print(connection.story())
    unanswered = sum(len(connection.unanswered) for connection in connections)
    answered = sum(len(connection.asked) for connection in connections) - unanswered
    if answered < ok or any(connection.has_gaps for connection in connections):
        raise CannotRun(f"tcpdump missed some packets: {ok} calls are ok, it saw {answered} answered")
    return unanswered + answered - ok


def parse_options():
    opening, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=opening, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    beside_the_venv = str(pathlib.Path(sys.prefix).parent / "node_modules")
    node_modules = os.environ.get("TOUCHDOWN_NODE_MODULES", beside_the_venv)
    add, minimum_maximum = parser.add_argument, ("MIN", "MAX")
    add("--server", required=True, help="the greeter_server, or with --tls board_server, to restart")
    add("--client", choices=["python", "node"], default="python")
    add("--by", choices=["restart", "upgrade"], default="restart", help="SIGTERM and a new start, or SIGUSR2")
    add("--restarts", type=int, default=30)
    add("--callers", type=int, default=16, help="calls at the same time")
    add("--delay-ms", type=float, default=0, help="added to every round trip, half each way; needs root")
    add("--think-ms", type=int, nargs=2, default=[0, 5], metavar=minimum_maximum, help="how long a handler takes")
    add("--name-bytes", type=int, default=0, help="length of request and reply")
    add("--retries", choices=["transparent", "none"], default="transparent", help="of the client; none needs root")
    add("--pause-ms", type=float, nargs=2, default=[100, 400], metavar=minimum_maximum, help="from a reply to SIGTERM")
    add("--capture", help="look at the wire, and keep its packets in this file; needs root")
    add("--server-log", help="keep the server's standard error in this file")
    add("--tls", action="store_true", help="needs openssl")
    add("--health-checks", action="store_true", help="of the Python client")
    add("--mix", action="store_true", help="all four kinds of calls, and large ones, by the Python client")
    add("--cpus", type=int, help="how many processors the server has")
    add("--memory-mb", type=int, help="how much memory the server has, in MiB; needs root")
    add("--node", default="node", help="the Node program")
    add("--node-modules", default=node_modules, help="where its packages are")
    return parser.parse_args()


def main():
    options = parse_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    try:
        with contextlib.ExitStack() as cleanup:
            log = open(options.server_log, "w") if options.server_log else tempfile.TemporaryFile("w+")
            cleanup.enter_context(log)
            well = run(options, cleanup, log)
    except CannotRun as error:
        print(f"cannot run: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0 if well else 1)


if __name__ == "__main__":
    main()
