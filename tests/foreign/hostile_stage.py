"""What hostile.py stands on: a server, its innocent callers, the attacker, and what is measured of them."""

import contextlib
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import network
from restarts import CannotRun, free_port, make_certificate

HERE = pathlib.Path(__file__).parent
PATIENCE_S = 15
BASELINE_S = 1.0
# What a call over loopback takes at the most on a machine that does nothing else, with its 99th percentile.
BUSY_MS = 20
BASELINES = 3
# From here on a baseline would excuse everything.
TOO_BUSY_MS = 100
# Between two attacks, so that what is left of one does not count as the next.
REST_S = 0.2
# When a server has to be as it was before.
RECOVERY_S = 5.0
AFTER_S = 0.6
# The longest that a call of the callers takes: see hostile_callers.py.
DEADLINE_S = 3
BURN = "while True: pass"
H2LOAD_RATE = 50
HELLO = b"\0\0\0\0\x05\x0a\x03you"


class Window:
    """A stretch of time, and what the callers saw of calls that began in it."""

    def __init__(self):
        self.began, self.ended = time.monotonic(), None
        self.peak_mib = 0
        self.others_cores = 0.0  # how many other programs had meanwhile

    def end(self):
        self.ended = time.monotonic()

    def has(self, moment):
        return self.began <= moment <= self.ended


class Stage:
    def __init__(self, options, cleanup, name, tls):
        self.way = "tls" if tls else "plain"
        self.program = options.tls_server if tls else options.server
        self._cleanup, self._tls = cleanup, tls
        self.folder = pathlib.Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="hostile-")))
        self.port = free_port()
        self._log = pathlib.Path(options.logs or self.folder, f"{name}.log")
        self.certificate = make_certificate(self.folder, "127.0.0.1") if tls else []
        self.calls = []  # kind, when it began, how long it took, status
        self.baseline = self.recovery = None
        self.windows = {}  # by the name of the attack
        self.said = {}  # what the attacker says, likewise
        self.before_mib = self.after_mib = 0.0
        self.is_alive = True

    # Processes

    def _start(self, command, **options):
        child = subprocess.Popen(command, preexec_fn=network.die_with_parent, **options)
        self._cleanup.callback(self._end, child)
        return child

    @staticmethod
    def _end(child):
        if child.poll() is None:
            child.kill()
        child.wait()

    def start(self):
        """Starts the server, the callers, and the attacker, who waits."""
        with open(self._log, "w") as log:
            certificate = ["--tls", *self.certificate] if self._tls else []
            self.server = self._start(
                [self.program, *certificate, f"127.0.0.1:{self.port}"],
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, "RUST_LOG": "info"},
            )
        self._await(lambda: "→ serving" in self._log.read_text(), "the server serves")
        self.callers = self._start(
            [sys.executable, "-B", HERE / "hostile_callers.py", str(self.port), *self.certificate[:1]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        threading.Thread(target=self._note_calls, daemon=True).start()
        self.attacker = self._start(
            [sys.executable, "-B", HERE / "hostile_attacks.py", str(self.port), *(["--tls"] if self._tls else [])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._start_h2load()

    def _start_h2load(self):
        if not shutil.which("h2load"):
            raise CannotRun("h2load is missing: it is in Debian's nghttp2-client")
        hello = self.folder / "hello"
        hello.write_bytes(HELLO)
        self._h2load_log = self.folder / "h2load.log"
        headers = ["content-type: application/grpc", "te: trailers"]
        self.h2load = self._start(
            [
                *("h2load", "-t1", "-c2", "-m1", f"--rps={H2LOAD_RATE}", "-D600", "-d", hello),
                *(word for header in headers for word in ("-H", header)),
                f"--log-file={self._h2load_log}",
                f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/greeter.Greeter/SayHello",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _note_calls(self):
        for line in self.callers.stdout:
            # The last may be a part of one: they are killed at the end.
            words = line.split()
            if len(words) == 4:
                kind, began, took, status = words
                self.calls.append((kind, float(began), float(took), status))

    def _await(self, condition, what):
        give_up = time.monotonic() + PATIENCE_S
        while not condition():
            if time.monotonic() > give_up or self.server.poll() is not None:
                raise CannotRun(f"waited in vain: {what}; {self._log.read_text()[-2000:]}")
            time.sleep(0.005)

    def await_callers(self):
        """Waits until each kind of caller has made calls, with a channel that is connected."""
        kinds = ("open", "new", "health")
        well = lambda kind: sum(it[0] == kind and it[3] == "OK" for it in list(self.calls)) >= 3
        self._await(lambda: all(map(well, kinds)), "all callers call")

    # Measurements

    def _status(self, field):
        for line in pathlib.Path(f"/proc/{self.server.pid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024
        raise CannotRun("the server has ended")

    def _forget_peak(self):
        pathlib.Path(f"/proc/{self.server.pid}/clear_refs").write_text("5")

    def measure_baseline(self, burns):
        """Measures the callers alone; again if something else has the machine meanwhile, and takes the best."""
        burner = self._start([sys.executable, "-c", BURN]) if burns else None
        time.sleep(0.1 if burns else 0)
        windows = []
        for _ in range(BASELINES):
            windows.append(Window())
            time.sleep(BASELINE_S)
            windows[-1].end()
            if self._open_ms(windows[-1]) < BUSY_MS:
                break
        self.baseline = min(windows, key=self._open_ms)
        best_ms = self._open_ms(self.baseline)
        if best_ms >= TOO_BUSY_MS:
            raise CannotRun(f"the machine is too busy: without an attack, calls take {best_ms:.0f} ms")
        if best_ms >= BUSY_MS:
            print(f"the machine is busy: without an attack, calls take {best_ms:.0f} ms", file=sys.stderr, flush=True)
        if burner:
            self._end(burner)
        self.before_mib = self._status("VmRSS")

    def _open_ms(self, window):
        took = [took * 1000 for kind, began, took, _ in list(self.calls) if kind == "open" and window.has(began)]
        return percentile_99(took)

    def _processor_s(self):
        """How long processors have worked until now: for everybody, and for ours."""
        tick = os.sysconf("SC_CLK_TCK")
        numbers = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        # All but the times in which there was nothing to do.
        everybody = sum(map(int, numbers[:8])) - int(numbers[3]) - int(numbers[4])
        ours = 0
        for process in (os.getpid(), self.server.pid, self.callers.pid, self.attacker.pid, self.h2load.pid):
            with contextlib.suppress(OSError):
                # Behind the program's name, which may hold anything.
                fields = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                ours += int(fields[11]) + int(fields[12])
        return everybody / tick, ours / tick

    def attack(self, attack):
        self._ask(f"prepare {attack.name}")
        time.sleep(REST_S)
        self._forget_peak()
        everybody, ours = self._processor_s()
        window = self.windows[attack.name] = Window()
        self.said[attack.name] = json.loads(self._ask(f"run {attack.seconds}", attack.seconds + PATIENCE_S))
        window.end()
        everybody, ours = (now - then for now, then in zip(self._processor_s(), (everybody, ours)))
        window.others_cores = max(0.0, everybody - ours) / (window.ended - window.began)
        if self.server.poll() is None:
            window.peak_mib = self._status("VmHWM")
        else:
            self.is_alive = False

    def _ask(self, line, patience_s=PATIENCE_S):
        answer = []
        self.attacker.stdin.write(f"{line}\n")
        self.attacker.stdin.flush()
        reader = threading.Thread(target=lambda: answer.append(self.attacker.stdout.readline()), daemon=True)
        reader.start()
        reader.join(patience_s)
        if not answer or not answer[0]:
            raise CannotRun(f"the attacker does not answer to `{line}`")
        return answer[0]

    def measure_recovery(self):
        """Measures 5 s after the last attack, when all calls that began in it have ended as well."""
        last = max(window.ended for window in self.windows.values())
        time.sleep(max(0.0, last + RECOVERY_S - time.monotonic()))
        self.recovery = Window()
        time.sleep(AFTER_S)
        self.recovery.end()
        self.after_mib = self._status("VmRSS") if self.server.poll() is None else 0.0

    def finish(self):
        """Ends the callers and the server."""
        self.is_alive = self.is_alive and self.server.poll() is None
        # Those that began at the end of the window.
        give_up = self.recovery.ended + DEADLINE_S + 0.5
        late = lambda: any(it[1] > self.recovery.ended for it in list(self.calls) if it[0] == "open")
        while self.is_alive and not late() and time.monotonic() < give_up:
            time.sleep(0.01)
        self._end(self.h2load)
        self._h2load_calls = list(self._read_h2load())
        self._end(self.callers)
        self.attacker.stdin.close()
        if self.is_alive:
            self.server.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server.wait(1)

    def _read_h2load(self):
        """Its calls: when they began on the monotonic clock, how long they took, and whether they went well."""
        offset = time.time() - time.monotonic()
        for line in self._h2load_log.read_text().splitlines():
            began, status, took = line.split("\t")[:3]
            yield int(began) / 1e6 - offset, int(took) / 1e6, status == "200"

    def calls_of(self, window, kind):
        """Calls that began in a window: how long each took, in ms, and the statuses of those that failed."""
        if kind == "h2load":
            found = [(took, "OK" if well else "FAILED") for began, took, well in self._h2load_calls if window.has(began)]
        else:
            found = [(took, status) for which, began, took, status in self.calls if which == kind and window.has(began)]
        return [took * 1000 for took, _ in found], [status for _, status in found if status != "OK"]


def percentile_99(values):
    ordered = sorted(values)
    return ordered[math.ceil(0.99 * len(ordered)) - 1] if ordered else math.inf
