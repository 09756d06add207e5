#!/usr/bin/env python3
"""`make footprint`: what touchdown takes of a small machine; writes docs/footprint.md."""

import argparse
import os
import re
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import sizes

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "rivals"))
import measure  # noqa: E402
import rivals  # noqa: E402
import run as bench  # noqa: E402

PAGE = rivals.ROOT / "docs/footprint.md"
EXAMPLES = (
    ("greeter_server", "server", "`server`"),
    ("greeter_server", "client", "`server`, `client` (the default)"),
    ("footprint_tls", "tls", "`server`, `tls`"),
    ("board_server", "tls,admin,systemd", "`server`, `tls`, `admin`, `systemd`"),
)
# The first is the machine that measures; of the others there are only sizes.
TARGETS = ("x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "armv7-unknown-linux-gnueabihf")
# What the sizes are compared with, in bytes, without and with TLS.
SIZES = {TARGETS[1]: (3_200_000, 6_000_000), TARGETS[2]: (2_200_000, 4_500_000)}
CONNECTIONS = 200
CALLS = 200_000
STARTS = 20
LARGEST = 10
# How long nothing happens until what is left of the load is measured.
REST_S = 60
# An HTTP/2 client's first words, with empty settings, and how it acknowledges the server's (RFC 9113, 3.4).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
ACKNOWLEDGED = b"\0\0\0\4\1\0\0\0\0"
# What issue and figure are compared with, in MiB, threads and milliseconds.
LIMITS = (
    ("memory at rest", lambda it: it["idle"]["VmRSS"], 8, "MiB"),
    ("of it private (RssAnon)", lambda it: it["idle"]["RssAnon"], 1.5, "MiB"),
    (f"memory with {CONNECTIONS} connections", lambda it: it["connected"]["VmRSS"], 12, "MiB"),
    (
        f"more than at rest, a minute after {CALLS:,} calls",
        lambda it: it["after"]["VmRSS"] - it["idle"]["VmRSS"],
        2,
        "MiB",
    ),
    ("threads at rest", lambda it: it["idle"]["Threads"], 24, ""),
    ("from exec to ready, median", lambda it: it["start"], 5, "ms"),
)


def build(target):
    """The programs of a target: features, path of the stripped program, its size, and what the linker says it is made of."""
    output = rivals.TARGET / "footprint" / target
    output.mkdir(parents=True, exist_ok=True)
    rivals.run(rivals.ROOT / ".ci/cross-tools", target, cwd=rivals.ROOT)
    printed = rivals.run(rivals.ROOT / "cross/env", target)
    variables = dict(re.findall(r"^export (\w+)='(.*)'$", printed, flags=re.M))
    linker = variables.get(f"CARGO_TARGET_{target.upper().replace('-', '_')}_LINKER", "gcc")
    tools = linker.removesuffix("gcc")
    built = []
    for example, features, name in EXAMPLES:
        # The linker's options are parted by commas.
        program = output / f"{example}-{features.replace(',', '-')}"
        link_map = program.with_suffix(".map")
        command = [rivals.ROOT / ".ci/watch", f"{target}/edge", os.environ.get("CARGO", "cargo"), "rustc", "--locked"]
        command += ["--profile", "edge", "--target", target, "--example", example]
        command += ["--no-default-features", "--features", features]
        command += ["--", "-C", "strip=none", "-C", f"link-arg=-Wl,-Map={link_map}"]
        environment = {**os.environ, **variables, "CARGO_TARGET_DIR": str(rivals.TARGET)}
        subprocess.run(command, cwd=rivals.ROOT, env=environment, check=True)
        shutil.copy2(rivals.TARGET / target / "edge/examples" / example, program)
        stripped = program.with_suffix(".stripped")
        subprocess.run([f"{tools}strip", "-o", stripped, program], check=True)
        size, parts = sizes.contributors(program, stripped, link_map, grpc_sources())
        built.append((name, stripped, size, parts))
    return built


def huge_pages():
    """When the kernel gives memory in pages of 2 MiB: always, to programs that ask for it (madvise), or never."""
    try:
        chosen = re.search(r"\[(\w+)\]", Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text())
    except OSError:
        return "never"
    return chosen[1]


def grpc_sources():
    import json

    cargo = os.environ.get("CARGO", "cargo")
    text = rivals.run(cargo, "metadata", "--format-version", "1", "--locked", cwd=rivals.ROOT)
    packages = {it["name"]: it["manifest_path"] for it in json.loads(text)["packages"]}
    return Path(packages["grpcio-sys"]).parent / "grpc"


def status(process):
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
    )
    found = {key: int(fields[key].split()[0]) / 1024 for key in ("VmRSS", "RssAnon", "RssFile")}
    return {**found, "Threads": int(fields["Threads"])}


def settled(process):
    """The state once it has not changed for half a second."""
    before, deadline = None, time.monotonic() + 20
    while True:
        now = status(process)
        if now == before or time.monotonic() > deadline:
            return now
        before = now
        time.sleep(0.5)


def connect(address):
    host, port = address.rsplit(":", 1)
    client = socket.create_connection((host, int(port)), 10)
    client.settimeout(10)
    client.sendall(PREFACE)
    heard = b""
    while ACKNOWLEDGED not in heard:
        more = client.recv(4096)
        if not more:
            raise measure.Failed("the server closed a connection")
        heard += more
    client.sendall(ACKNOWLEDGED)
    return client


def walk_through(server):
    """One process: at rest, with connections, under load, and after it."""
    with measure.running(server.command) as (process, address):
        found = {"idle": settled(process)}
        clients = [connect(address) for _ in range(CONNECTIONS)]
        found["connected"] = settled(process)
        for client in clients:
            client.close()
        load = measure.Load(50, 10)
        with tempfile.NamedTemporaryFile() as request:
            request.write(load.request)
            request.flush()
            command = ["h2load", "-t", "1", "-c", "50", "-m", "10", "-n", str(CALLS), "-d", request.name]
            url = f"http://{address}{measure.SAY_HELLO}"
            h2load = subprocess.Popen([*command, *measure.HEADERS, url], stdout=subprocess.PIPE, text=True)
            found["load"] = status(process)
            while h2load.poll() is None:
                now = status(process)
                found["load"] = {key: max(now[key], found["load"][key]) for key in now}
                time.sleep(0.05)
        if f"{CALLS} 2xx" not in h2load.stdout.read():
            raise measure.Failed("not all calls were answered")
        time.sleep(REST_S)
        found["after"] = status(process)
        return found


def first_word(server):
    """Milliseconds from before fork and exec until a connection is spoken to; for touchdown, until it says so, too."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    out, to_parent = os.pipe()
    command = server.command(address)
    actions = [(os.POSIX_SPAWN_DUP2, to_parent, 1), (os.POSIX_SPAWN_DUP2, to_parent, 2)]
    begin = time.monotonic()
    process = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    os.close(to_parent)
    try:
        said = None
        if server.says_when:
            select.select([out], [], [], 10)
            text = b""
            while b"listening at" not in text:
                text += os.read(out, 4096) or exit(f"{command[0]} ended: {text.decode()}")
            said = time.monotonic() - begin
        while True:
            try:
                connect(address).close()
                break
            except OSError:
                if time.monotonic() - begin > 10:
                    raise measure.Failed(f"{server.name} does not listen") from None
        return said and said * 1000, (time.monotonic() - begin) * 1000
    finally:
        os.kill(process, 9)
        os.waitpid(process, 0)
        os.close(out)


class Small(rivals.Server):
    """The example greeter_server as it is built for boards."""

    key = "touchdown"
    name = "touchdown"
    says_when = True

    def __init__(self, program):
        self.program = program


def measure_all(servers):
    results = []
    for server in servers:
        print(f"measuring {server.name}", flush=True)
        measure.verify(server)
        starts = [first_word(server) for _ in range(STARTS)]
        found = walk_through(server)
        found["spoken to"] = statistics.median(it[1] for it in starts)
        if server.says_when:
            found["start"] = statistics.median(it[0] for it in starts)
            found["best start"] = min(it[0] for it in starts)
        results.append((server, found))
    return results


def page(built, results, missing, load):
    machine = bench.machine()
    ours = results[0][1]
    text = [
        "# Footprint",
        "",
        "What touchdown takes of a small machine: size, memory, threads, and the time to start. Written by"
        f" `make footprint`, {time.strftime('%Y-%m-%d')}; {machine['cpu']}, {machine['cores']} cores,"
        f" {machine['memory']}, {machine['system']}, Linux {machine['kernel']}, transparent huge pages: {huge_pages()};"
        f" load average {load:.1f} before it began. Profile `edge`, feature `server`, default settings: 16 workers. [For a board](cross.md) has the build,"
        " [Small machines](small-machines.md) what was done, and what there is to set.",
        "",
        "## What was aimed at",
        "",
        f"One process: at rest, with {CONNECTIONS} connections without calls, then {CALLS:,} calls on 50 connections"
        " with 10 at a time, and a minute's rest.",
        "",
        "| | wanted | measured | |",
        "|---|---:|---:|---|",
    ]
    for name, figure, limit, unit in LIMITS:
        value = figure(ours)
        verdict = "reached" if value <= limit else "not reached"
        text.append(f"| {name} | ≤ {limit:g} {unit} | {value:.3g} {unit} | {verdict} |")
    text += [
        "",
        f"The time from exec is that from before `posix_spawn` to the first line that the program writes, `listening at"
        f" …`; the shortest of {STARTS} was {ours['best start']:.1f} ms.",
        "",
        "## Beside others",
        "",
        "MiB, resident and private (RssAnon). The servers are those of `make bench`, whose"
        " [page](benchmarks.md#how-it-is-measured) says how they are set up. Ready is when a connection is spoken to in HTTP/2.",
        "",
        "| | program | at rest | " + f"{CONNECTIONS} connections | under load | a minute after | threads at rest, under load | ready |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for server, it in results:
        memory = [f"{it[key]['VmRSS']:.1f} ({it[key]['RssAnon']:.1f})" for key in ("idle", "connected", "load", "after")]
        size = server.program.stat().st_size / 1e6
        threads = f"{it['idle']['Threads']}, {it['load']['Threads']}"
        name = f"{server.name} {server.version}".strip()
        text.append(f"| {name} | {size:.1f} MB | {' | '.join(memory)} | {threads} | {it['spoken to']:.1f} ms |")
    text += [f"\nLeft out: {name}, since {why}." for name, why in missing.items()]
    text += ["", "## Size", "", "Stripped, in bytes. [For a board](cross.md) has the commands.", ""]
    text += ["| features | " + " | ".join(f"`{target}`" for target in built) + " |", "|---|" + "---:|" * len(built)]
    for index, (_, _, name) in enumerate(EXAMPLES):
        text.append(f"| {name} | " + " | ".join(f"{it[index][2]:,}" for it in built.values()) + " |")
    text.append("")
    for target, limits in SIZES.items():
        if target not in built:
            continue
        for index, limit, what in ((0, limits[0], "without"), (2, limits[1], "with")):
            verdict = "reached" if built[target][index][2] <= limit else "not reached"
            text.append(f"- `{target}` {what} TLS: wanted ≤ {limit / 1e6:.1f} MB, {verdict}")
    text.append(
        "\nThe largest parts of each. C and C++ are counted by source folder, Rust by crate; what is generic counts for the"
        " crate that defines it."
    )
    for target, programs in built.items():
        for name, _, size, parts in programs:
            text += ["", f"| `{target}`: {name} | bytes | |", "|---|---:|---:|"]
            text += [f"| {part} | {count:,} | {100 * count / size:.0f} % |" for part, count in parts[:LARGEST]]
            rest = sum(count for _, count in parts[LARGEST:])
            text.append(f"| {len(parts) - LARGEST} others | {rest:,} | {100 * rest / size:.0f} % |")
    return "\n".join(text) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, epilog="Takes some 10 minutes after the builds, which take 15 for each target, 3 with ccache.")
    parser.add_argument("--targets", nargs="+", default=TARGETS, help=f"default {' '.join(TARGETS)}; the first is measured")
    parser.add_argument("--output", type=Path, default=PAGE, help=f"where to write, default {PAGE}")
    parser.add_argument("--no-rivals", action="store_true", help="measure touchdown alone")
    parser.add_argument("--no-install", action="store_true", help="do not install Debian packages that are missing")
    options = parser.parse_args()
    if not shutil.which("h2load"):
        if options.no_install or subprocess.run([rivals.ROOT / ".ci/install", "nghttp2-client"]).returncode:
            print("missing: nghttp2-client (a Debian package)", file=sys.stderr)
            return 1
    built = {target: build(target) for target in options.targets}
    others, missing = [], {}
    if not options.no_rivals:
        others, missing = rivals.prepare(["tonic", "grpcio", "go"], not options.no_install)
    for server in others:
        server.says_when = False
    load = os.getloadavg()[0]
    results = measure_all([Small(built[options.targets[0]][0][1]), *others])
    options.output.write_text(page(built, results, missing, load))
    print(f"written: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
