"""What the scenarios of pauses.py stand on: the servers with their log, the wire, and what stops and thaws a process.

A server is known by its log alone: that it listens, that it drains, and what it says of its calls in the end.
"""

import contextlib
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import network
from restarts import CannotRun, free_port, make_certificate, prepare_in

# Longer than the server's own plan for a stop, and than the deadline of a call.
PATIENCE_S = 100
LOOK_S = 0.002
DRAINS = re.compile(r"draining \d+ calls")
REPORT = re.compile(r"\] (?P<verdict>[^\]]*?) in \S+ \(exit (?P<code>\d+)\): (?P<reason>[^;]*);.*?calls: (?P<counts>.*)")
SERVER_PORT = 50051


class Skipped(Exception):
    """This machine lacks what a scenario needs."""


def await_condition(condition, what, patience_s=PATIENCE_S, meanwhile=lambda: time.sleep(LOOK_S)):
    give_up = time.monotonic() + patience_s
    while not (value := condition()):
        if time.monotonic() > give_up:
            raise CannotRun(f"waited {patience_s} s in vain: {what}")
        meanwhile()
    return value


class Report:
    """What a server says of its stop."""

    def __init__(self, match):
        self.line = match.string[match.start("verdict") :]
        self.is_clean = "cleanly" in match["verdict"]
        self.exit_code = int(match["code"])
        # Words that were not known when this was written are kept like the others.
        pairs = re.findall(r"(?<![\w.])(\d+) ([a-z][a-z ]*)", match["counts"])
        self.counts = {words.strip(): int(number) for number, words in pairs}

    def count(self, word):
        """The sum of all counts whose words begin so."""
        return sum(count for words, count in self.counts.items() if words.startswith(word))


def reports(log):
    return [Report(match) for match in map(REPORT.search, log.splitlines()) if match]


class Stage:
    """Servers at one address, one after the other, and the way to them. With `own_program` they run a copy of the program.

    `transport` is "tcp", "unix" or "tls". With `wire`, TCP and TLS go over a wire that can hold packets; else over the
    loopback device.
    """

    def __init__(self, options, cleanup, name, transport="tcp", wire=False, delay_ms=0, own_program=False):
        self._cleanup = cleanup
        self.program = options.tls_server if transport == "tls" else options.server
        if not self.program:
            raise Skipped("needs --tls-server")
        self.folder = pathlib.Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="pauses-")))
        if own_program:
            self.program = shutil.copy(self.program, self.folder)
        self._log = pathlib.Path(options.logs or self.folder, f"{name}.log")
        self._log.write_text("")
        self.transport, self.wire = transport, None
        self._namespace_of_server = self.namespace_of_client = None
        if transport == "unix":
            self.address = f"unix:{self.folder / 'greeter.sock'}"
        elif wire:
            self.wire = cleanup.enter_context(contextlib.closing(self._lay_wire(delay_ms)))
            self._namespace_of_server, self.namespace_of_client = self.wire.server, self.wire.client
            self.address = f"{network.SERVER_ADDRESS}:{SERVER_PORT}"
        else:
            self.address = f"127.0.0.1:{free_port()}"
        self.certificate = None
        if transport == "tls":
            self.certificate, self._key = make_certificate(self.folder, self.address.partition(":")[0])
        # The kernel ends a server together with the thread that has started it, so those that do live as long as this.
        self._closing = threading.Event()
        cleanup.callback(self._closing.set)
        self.process = self.first = None
        self.exits = {}  # by process: its exit code, and when
        self.began = None
        self._children = []
        self._starts_again = False

    def _lay_wire(self, delay_ms):
        try:
            return network.SlowNetwork(delay_ms)
        except (OSError, subprocess.CalledProcessError) as error:
            needs = "/dev/net/tun, `ip`, and root or user namespaces"
            raise Skipped(f"a wire that holds packets needs {needs}: {error}") from error

    # Servers

    def start_server(self, prepare=None):
        """Starts one and waits until it serves."""
        count = self.log().count("→ serving")
        certificate = ["--tls", self.certificate, self._key] if self.certificate else []
        enter_network = prepare_in(self._namespace_of_server)

        def prepare_all():
            enter_network()
            if prepare:
                prepare()

        with open(self._log, "a") as log:
            # Kept: a Popen that is forgotten may be waited for by the next.
            child = subprocess.Popen(
                [self.program, *certificate, self.address],
                preexec_fn=prepare_all,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, "RUST_LOG": "info"},
            )
        self._children.append(child)
        self._adopt(child.pid)
        await_condition(lambda: self.log().count("→ serving") > count or child.pid in self.exits, "the server serves")
        if child.pid in self.exits:
            raise CannotRun(f"the server ended: {self.log()}")

    def _adopt(self, process):
        """From now on this is the server. Its end is noted at once."""
        self.process = process
        self._cleanup.callback(self._kill, process)
        threading.Thread(target=self._await_end, args=(process,), daemon=True).start()

    def _await_end(self, process):
        descriptor = os.pidfd_open(process)
        with open(descriptor):
            # It may be a child of its predecessor, which has to end first.
            while True:
                select.select([descriptor], [], [])
                with contextlib.suppress(ChildProcessError):
                    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
                    self.exits[process] = (code, time.monotonic())
                    return
                time.sleep(LOOK_S)

    def _kill(self, process):
        if process not in self.exits:
            with contextlib.suppress(OSError):
                os.kill(process, signal.SIGKILL)
            with contextlib.suppress(CannotRun):
                await_condition(lambda: process in self.exits, "a killed server ends", 10)

    def log(self):
        return self._log.read_text()

    def await_log(self, pattern, meanwhile=lambda: time.sleep(LOOK_S), patience_s=PATIENCE_S):
        found = lambda: re.search(pattern, self.log())
        return await_condition(found, f"the log says {pattern}", patience_s, meanwhile)

    def await_running(self, calls, meanwhile=lambda: time.sleep(0.02)):
        """Waits until the handlers of so many calls run."""
        self._await_state(lambda state: state.count(" on td-worker") >= calls, f"{calls} calls run", meanwhile)

    def await_connections(self, count, meanwhile=lambda: time.sleep(0.02)):
        """Waits until the server has accepted so many."""

        def has_them(state):
            said = re.search(r"(\d+) connections", state)
            return said and int(said[1]) >= count

        self._await_state(has_them, f"{count} connections are accepted", meanwhile)

    def _await_state(self, is_right, what, meanwhile):
        """Asks the server again and again what it is at."""

        def ask():
            known = len(self.log())
            os.kill(self.process, signal.SIGUSR1)
            await_condition(lambda: "asked for by" in self.log()[known:], "the server says what it is at")
            meanwhile()
            return is_right(self.log()[known:])

        await_condition(ask, what, meanwhile=lambda: None)

    # Stops and upgrades

    def begin(self, by, again=False, meanwhile=lambda: time.sleep(LOOK_S)):
        """Has the server stop, or be replaced, and waits until it drains. `again`: a new one starts when it has ended."""
        if by == "term":
            self.signal(signal.SIGTERM)
            if again:
                self.start_again()
        else:
            self.upgrade(meanwhile)
        self.await_log(DRAINS, meanwhile)

    def signal(self, number):
        self.began = time.monotonic()
        self.first = self.process
        os.kill(self.process, number)

    def start_again(self):
        """Does in the background what a supervisor does."""
        first = self.process

        def serve_on():
            with contextlib.suppress(CannotRun):
                await_condition(lambda: first in self.exits or self._closing.is_set(), "the first server ends")
                if not self._closing.is_set():
                    self.start_server()
            self._closing.wait()

        threading.Thread(target=serve_on, daemon=True).start()
        self._starts_again = True

    def upgrade(self, meanwhile=lambda: time.sleep(LOOK_S)):
        """Returns when the new process is in charge. The time of the stop counts from there."""
        self.signal(signal.SIGUSR2)
        found = self.await_log(r"process (\d+) takes over", meanwhile)
        self.began = time.monotonic()
        self._adopt(int(found[1]))

    def end(self):
        """Waits for the end of the first server, and ends the second, if there is one."""
        await_condition(lambda: self.first in self.exits, "the server ends")
        if self._starts_again:
            await_condition(lambda: self.log().count("→ serving") == 2, "the second server serves")
        if self.process != self.first:
            last = self.process
            os.kill(last, signal.SIGTERM)
            await_condition(lambda: last in self.exits, "the second server ends")
        if self.wire and self.wire.dropped():
            raise CannotRun(f"the wire has dropped {self.wire.dropped()} packets")

    def end_all(self, successor):
        """Ends both processes, whichever is in charge and whether the new one is frozen or not."""
        for process in (self.first, successor):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        await_condition(lambda: self.first in self.exits, "the server ends")
        with contextlib.suppress(ProcessLookupError):
            thaw(successor)
            with open(os.pidfd_open(successor)) as end:
                await_condition(lambda: select.select([end], [], [], 0)[0], "the new process ends")

    @property
    def took_s(self):
        """From the beginning of the stop to the end of the first server."""
        return self.exits[self.first][1] - self.began

    @property
    def exit_codes(self):
        return [code for code, _ in self.exits.values()]

    def reports(self):
        return reports(self.log())

    # Pauses

    def await_received(self, connections):
        """Waits until there is something to read in the receive queues of so many connections of the first server."""

        def unread():
            return sum(received > 0 for _, received in self._queues(self.first))

        await_condition(lambda: unread() >= connections, f"{connections} connections have something to read")

    def await_acknowledged(self):
        """Waits until the kernels of all clients have acknowledged all that the server has sent."""
        await_condition(lambda: not any(sent for sent, _ in self._queues(self.process)), "all is acknowledged")

    def _queues(self, process):
        """For each TCP connection, how many bytes are sent and not acknowledged, and how many received and not read."""
        port = f":{int(self.address.rpartition(':')[2]):04X}"
        rows = pathlib.Path(f"/proc/{process}/net/tcp").read_text().splitlines()[1:]
        for _, local, _, state, queues, *_ in (row.split() for row in rows):
            if local.endswith(port) and state == "01":
                sent, received = queues.split(":")
                yield int(sent, 16), int(received, 16)

    # The way to the server

    def connect(self, count):
        """Sockets that are connected to the server; with TLS, their handshakes are not begun yet."""
        if self.transport == "unix":
            sockets = [socket.socket(socket.AF_UNIX) for _ in range(count)]
            for it in sockets:
                it.connect(self.address.removeprefix("unix:"))
            return sockets
        host, _, port = self.address.rpartition(":")
        inside = contextlib.nullcontext() if self.wire is None else network.inside(self.namespace_of_client)
        with inside:
            sockets = [socket.socket() for _ in range(count)]
        # All at once: one after the other, the first would seem to be silent clients on a slow wire.
        for it in sockets:
            it.setblocking(False)
            it.connect_ex((host, int(port)))
        await_condition(lambda: len(select.select([], sockets, [], 0)[1]) == count, "all are connected")
        for it in sockets:
            # Raises if it is not.
            it.getpeername()
            it.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.certificate is None:
            return sockets
        context = ssl.create_default_context(cafile=self.certificate)
        context.set_alpn_protocols(["h2"])
        return [context.wrap_socket(it, server_hostname=host, do_handshake_on_connect=False) for it in sockets]


def end_descendants():
    """Ends all processes that were started here, and those that they have started, whatever state they are in."""

    def ended():
        children = [process for path in pathlib.Path("/proc/self/task").iterdir() for process in _children(path)]
        for process in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process, os.WNOHANG)
        return not children

    await_condition(ended, "all processes end", 10)


def _children(thread):
    # A thread may end meanwhile.
    with contextlib.suppress(OSError):
        return list(map(int, (thread / "children").read_text().split()))
    return []


def freeze(process):
    os.kill(process, signal.SIGSTOP)
    network.await_state(process, "T")


def thaw(process):
    os.kill(process, signal.SIGCONT)


class Freezer:
    """A cgroup that can be frozen, as `docker pause` and the snapshot of a machine do it. Needs root."""

    def __init__(self):
        old, new = pathlib.Path("/sys/fs/cgroup/freezer"), pathlib.Path("/sys/fs/cgroup")
        self._is_new = not old.exists()
        self._folder = (new if self._is_new else old) / f"touchdown-pauses-{os.getpid()}"
        try:
            self._folder.mkdir()
            if self._is_new and not (self._folder / "cgroup.freeze").exists():
                self._folder.rmdir()
                raise OSError("the kernel has none")
        except OSError as error:
            raise Skipped(f"the freezer needs root and its cgroup: {error}") from error

    def enter(self):
        """For `preexec_fn`."""
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))

    def freeze(self):
        self._set(True)

    def thaw(self):
        self._set(False)

    def _set(self, frozen):
        if self._is_new:
            (self._folder / "cgroup.freeze").write_text(str(int(frozen)))
            state, expected = self._folder / "cgroup.events", f"frozen {int(frozen)}"
        else:
            expected = "FROZEN" if frozen else "THAWED"
            (self._folder / "freezer.state").write_text(expected)
            state = self._folder / "freezer.state"
        await_condition(lambda: expected in state.read_text(), f"the freezer says {expected}", 10)

    def close(self):
        self.thaw()
        # The last process may not be gone yet.
        def remove():
            with contextlib.suppress(OSError):
                self._folder.rmdir()
            return not self._folder.exists()

        await_condition(remove, "the freezer is empty", 10)
