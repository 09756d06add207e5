"""One measurement: a fresh server, load from h2load or from `bench_streams`, and what the server took for it."""

import contextlib
import re
import socket
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from rivals import TARGET

HEADERS = ("-H", "content-type: application/grpc", "-H", "te: trailers")
SAY_HELLO = "/greeter.Greeter/SayHello"
# A run that takes as much longer than it should has failed.
PATIENCE = 60


class Failed(Exception):
    """A measurement came to nothing: calls failed, or the server did not answer."""


class Load:
    """Unary calls: so many connections with so many streams, a message of so many bytes, a handler that blocks."""

    def __init__(self, connections, streams, size=32, block_ms=0):
        self.connections, self.streams = connections, streams
        # Where the message has a second field, it is part of the size.
        field = b"\x10" + varint(block_ms) if block_ms else b""
        length = size
        while len(b"\x0a" + varint(length)) + length + len(field) > size:
            length -= 1
        name = b"x" * length
        self.request = with_prefix(b"\x0a" + varint(length) + name + field)
        text = b"Hello, " + name + b"!"
        self.reply = with_prefix(b"\x0a" + varint(len(text)) + text)

    def __str__(self):
        return f"{self.connections}x{self.streams}"


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def with_prefix(message):
    return b"\0" + len(message).to_bytes(4, "big") + message


@contextlib.contextmanager
def running(command_for, wrapper=(), patience=10):
    """A server that listens at a free port, ended when the block is. Yields the process and the address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*wrapper, *command_for(address)], stdout=log, stderr=log)
        try:
            wait_until_it_listens(process, address, patience)
            yield process, address
        except Failed as error:
            log.seek(0)
            said = log.read()[-300:].decode(errors="replace").strip()
            raise Failed(f"{error}; the server said: {said}") if said else error
        finally:
            process.kill()
            process.wait()


def wait_until_it_listens(process, address, patience):
    host, port = address.split(":")
    deadline = time.monotonic() + patience
    while True:
        try:
            socket.create_connection((host, int(port)), 1).close()
            return
        except OSError:
            if process.poll() is not None:
                raise Failed("the server ended")
            if time.monotonic() > deadline:
                raise Failed(f"the server did not listen within {patience} s")
            time.sleep(0.01)


def cpu_seconds(process):
    """Processor time of a process and all its threads, ended ones as well, in nanosecond steps."""
    # The clock of another process, see clock_getcpuclockid(3): its number is the inverted process id.
    return time.clock_gettime(~process.pid << 3 | 2)


def peak_mib(process):
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) / 1024


def h2load(address, load, calls, patience=PATIENCE):
    """Makes so many calls. Returns calls a second and the latencies in microseconds, sorted."""
    with tempfile.TemporaryDirectory() as folder:
        request, log = Path(folder, "request"), Path(folder, "log")
        request.write_bytes(load.request)
        command = ["h2load", "-t", "1", "-c", load.connections, "-m", load.streams, "-n", calls]
        command += ["-d", request, f"--log-file={log}", *HEADERS, f"http://{address}{SAY_HELLO}"]
        try:
            done = subprocess.run(
                [str(it) for it in command], capture_output=True, text=True, timeout=patience
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{calls} calls did not end within {patience} s") from None
        latencies = sorted(int(line.rsplit("\t", 1)[1]) for line in log.read_text().splitlines())
    out = done.stdout
    succeeded, good, data = (
        int(found.group(1)) if (found := re.search(pattern, out)) else -1
        for pattern in (r"(\d+) succeeded", r"(\d+) 2xx", r"\((\d+)\) data")
    )
    # A call that fails has status 200 in gRPC, but brings no message: the bytes tell.
    expected = (calls, calls, calls * len(load.reply))
    if (succeeded, good, data) != expected:
        raise Failed(
            f"of {calls} calls {succeeded} succeeded, {good} with status 2xx,"
            f" and {data} bytes came instead of {expected[2]}"
        )
    rate = float(re.search(r"finished in .*?, ([\d.]+) req/s", out).group(1))
    return rate, latencies


def calibrate(address, load, seconds):
    """Warms the server up, and says how many calls take about so long."""
    step = load.connections * load.streams
    calls = 2 * step
    while True:
        rate, _ = h2load(address, load, calls)
        if calls / rate > 0.2 * min(1, seconds):
            # Opening a connection costs more than a call; with many, calls must still outweigh it.
            rounds = 10 if load.connections >= 1_000 else 4
            return max(rounds, round(rate * seconds / step)) * step
        calls *= 4


def unary(server, load, seconds, workers=None):
    """Throughput, latency, processor time and memory under this load."""
    with running(lambda address: server.command(address, workers)) as (process, address):
        calls = calibrate(address, load, seconds)
        before = cpu_seconds(process)
        rate, latencies = h2load(address, load, calls)
        return {
            "rate": rate,
            "p50": percentile(latencies, 50),
            "p99": percentile(latencies, 99),
            "cpu": (cpu_seconds(process) - before) / calls * 100_000,
            "memory": peak_mib(process),
        }


def percentile(ordered, percent):
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def stream(server, direction, seconds):
    """Messages a second in one direction."""
    with running(server.command) as (process, address):
        bench_streams(address, direction, min(0.3, seconds))
        before = cpu_seconds(process)
        messages, took = bench_streams(address, direction, seconds)
        return {
            "rate": messages / took,
            "cpu": (cpu_seconds(process) - before) / messages * 100_000,
            "memory": peak_mib(process),
        }


def bench_streams(address, direction, seconds):
    command = [TARGET / "release/bench_streams", address, direction, str(seconds)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise Failed(f"the stream did not end within {PATIENCE} s") from None
    if done.returncode != 0:
        raise Failed(done.stderr.strip())
    messages, took = re.fullmatch(r"(\d+) messages in (\S+) s", done.stdout.strip()).groups()
    return int(messages), float(took)


def instructions(server, load, few=500, many=2_500):
    """Instructions a call, by callgrind: the difference of two runs, so that the start is not counted."""
    return {"instructions": (callgrind(server, load, many) - callgrind(server, load, few)) / (many - few)}


def callgrind(server, load, calls):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "callgrind.out")
        # Callgrind does not survive the signals by which Go interrupts its goroutines.
        valgrind = (
            "env",
            "GODEBUG=asyncpreemptoff=1",
            "valgrind",
            "--quiet",
            "--tool=callgrind",
            f"--callgrind-out-file={out}",
        )
        with running(server.command, valgrind, patience=60) as (process, address):
            h2load(address, load, calls, patience=120)
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                raise Failed("valgrind did not end within 60 s") from None
        # With several processes or dumps there are several files.
        totals = [
            int(found.group(1))
            for file in Path(folder).iterdir()
            if (found := re.search(r"^(?:totals|summary): (\d+)", file.read_text(), re.M))
        ]
    if not totals:
        raise Failed("callgrind wrote no totals")
    return sum(totals)


def verify(server):
    """Makes a call and looks at the reply itself, once for each server."""
    load = Load(1, 1)
    with running(server.command) as (_, address), tempfile.NamedTemporaryFile() as request:
        request.write(load.request)
        request.flush()
        command = ["nghttp", "-d", request.name, *HEADERS, f"http://{address}{SAY_HELLO}"]
        reply = subprocess.run(command, capture_output=True, timeout=PATIENCE).stdout
        verbose = subprocess.run([*command, "-v"], capture_output=True, timeout=PATIENCE).stdout
    if reply != load.reply or b"grpc-status: 0" not in verbose:
        raise Failed(f"the reply was {reply!r} instead of {load.reply!r}")


def median(measurements, figure):
    return statistics.median(it[figure] for it in measurements)
