#!/usr/bin/env python3
"""`make bench`: measures touchdown against its rivals, and writes docs/benchmarks.md, .svg and .json."""

import argparse
import json
import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import base
import measure
import page
import rivals
from measure import Failed, Load

PARTS = ("unary", "streams", "workers", "connections", "blocking", "instructions")
LOADS = {
    "1x1": Load(1, 1),
    "2x32": Load(2, 32),
    "50x10": Load(50, 10),
    "1000x1": Load(1_000, 1),
    "16KiB": Load(2, 8, 16 << 10),
    "1MiB": Load(1, 2, 1 << 20),
}
WORKERS = (1, 2, 4, 16, 64)
CONNECTIONS = (1, 10, 100, 1_000, 5_000)
BLOCKING = (0, 1, 100)
# Programs that measure, and Debian's packages that have them.
PACKAGES = {"h2load": "nghttp2-client", "valgrind": "valgrind"}


class Job:
    """What is measured again and again: one case of a part, on one server."""

    def __init__(self, part, case, server, key, task):
        self.part, self.case, self.server, self.key, self.task = part, str(case), server, key, task
        self.runs = []


def jobs(servers, options):
    """All that is asked for. In the order of parts and cases; servers are the innermost."""
    out = []

    def add(part, case, server, task, key=None):
        out.append(Job(part, case, server, key or server.key, task))

    with_workers = [it for it in servers if it.takes_workers]
    unary = partial(measure.unary, seconds=options.seconds)
    shorter = partial(measure.unary, seconds=options.seconds * 0.7)
    for case, load in LOADS.items():
        for server in servers:
            add("unary", case, server, partial(unary, server, load))
    for direction in ("up", "down"):
        for server in servers:
            add("streams", direction, server, partial(measure.stream, server, direction, options.seconds))
    for part, load in (("workers", Load(50, 10)), ("workers-blocking", Load(50, 10, block_ms=1))):
        for workers in WORKERS:
            for server in with_workers:
                add(part, workers, server, partial(shorter, server, load, workers=workers))
    for connections in CONNECTIONS:
        for server in servers:
            add("connections", connections, server, partial(shorter, server, Load(connections, 1)))
    for block_ms in BLOCKING:
        load = Load(64, 1, block_ms=block_ms)
        for server in servers:
            add("blocking", block_ms, server, partial(shorter, server, load, workers=64))
            if server.key == "touchdown":
                add("blocking", block_ms, server, partial(shorter, server, load), "touchdown16")
    for case in ("1x1", "2x32"):
        for server in servers:
            add("instructions", case, server, partial(measure.instructions, server, LOADS[case]))
    wanted = set(options.only)
    return [
        it for it in out if it.part.split("-")[0] in wanted and (not options.case or it.case in options.case)
    ]


def rounds_of(part, options):
    """The rivals are compared in all rounds; curves need fewer, and instructions hardly change."""
    most = {"unary": options.rounds, "streams": options.rounds, "instructions": 2}
    return min(options.rounds, most.get(part, 3))


def measure_all(todo, options):
    """Runs every job as often as it should be. Returns what failed."""
    failures = []
    cases = {}
    for job in todo:
        cases.setdefault((job.part, job.case), []).append(job)
    total = sum(rounds_of(job.part, options) for job in todo)
    done, start = 0, time.monotonic()
    for turn in range(options.rounds):
        for number, ((part, case), group) in enumerate(cases.items()):
            if turn >= rounds_of(part, options):
                continue
            first = (turn + number) % len(group)
            for job in group[first:] + group[:first]:
                done += 1
                said = f"[{done}/{total}, {time.monotonic() - start:.0f} s] {part} {case} {page.NAMES[job.key]}: "
                try:
                    run = job.task()
                    job.runs.append(run)
                    said += ", ".join(f"{figure} {value:,.6g}" for figure, value in run.items())
                except Failed as error:
                    failures.append({"part": part, "case": case, "server": job.key, "why": str(error)})
                    said += f"FAILED: {error}"
                print(said, flush=True)
    return failures


def raise_limit(todo):
    """Descriptors for 5,000 connections, here and so in h2load and the servers."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16_384
    if hard != resource.RLIM_INFINITY and hard < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return todo
        except (OSError, ValueError):
            wanted = hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    fits = [it for it in todo if it.part != "connections" or int(it.case) < wanted - 200]
    if len(fits) < len(todo):
        print(f"`ulimit -Hn` is {hard}: what takes more connections is left out", flush=True)
    return fits


def machine():
    def field(file, name):
        for line in Path(file).read_text().splitlines():
            if line.startswith(name):
                return line.split("=" if "=" in line else ":", 1)[1].strip().strip('"')
        return ""

    memory = int(field("/proc/meminfo", "MemTotal").split()[0]) / (1 << 20)
    cpu = field("/proc/cpuinfo", "model name") or field("/proc/cpuinfo", "Hardware") or platform.machine()
    if "hypervisor" in field("/proc/cpuinfo", "flags").split():
        cpu += " (virtual machine)"
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
        "system": field("/etc/os-release", "PRETTY_NAME"),
    }


def tools():
    versions = []
    for command in ("rustc --version", "c++ --version", "h2load --version", "valgrind --version"):
        if shutil.which(command.split()[0]):
            versions.append(rivals.run(*command.split()).splitlines()[0])
    return ", ".join(versions)


def processor():
    """Ticks of all processors: all of them, and those that the host gave to others."""
    ticks = [int(it) for it in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(ticks), ticks[7]


def write(raw, folder):
    results = page.Results(raw)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "benchmarks.md").write_text(page.page(results, rivals.ALL))
    (folder / "benchmarks.svg").write_text(page.picture(results))
    print(f"written: {folder}/benchmarks.md, benchmarks.svg, benchmarks.json")
    return results


def save(raw, folder):
    """A line for each result, so that two runs can be compared by `diff`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(it) for it in raw["results"])
    text = f'{{\n"about": {json.dumps(raw["about"], indent=1)},\n'
    text += f'"failures": {json.dumps(raw["failures"], indent=1)},\n"results": [\n{lines}\n]\n}}\n'
    (folder / "benchmarks.json").write_text(text)


def summary(results):
    """The head-to-head on the terminal."""
    for part, known, figures in (
        ("unary", page.UNARY, (("rate", page.count), ("cpu", page.seconds), ("p99", page.time))),
        ("streams", page.STREAMS, (("rate", page.count), ("cpu", page.seconds))),
        ("instructions", page.INSTRUCTIONS, (("instructions", page.count),)),
    ):
        cases = results.cases(part, known)
        for figure, form in figures if cases else ():
            print(f"\n{part}, {figure}:\n{page.table(results, part, cases, figure, form)}")


def options():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="Everything, with the defaults, takes some 15 minutes after the builds."
    )

    def some_of(known):
        return lambda text: check(text.split(","), known, parser)

    names = [it.key for it in rivals.ALL]
    parser.add_argument(
        "--quick", action="store_true", help="one round of 0.3 s each, without instructions: does it all run?"
    )
    parser.add_argument("--only", type=some_of(PARTS), metavar="PART,…", help=f"of {', '.join(PARTS)}")
    parser.add_argument(
        "--instructions",
        action="store_true",
        help="only this: instructions a call of greeter_server at 2x32, and how many times those of the revision"
        " that the variable BASE names (default: the last tag, or else HEAD~1)",
    )
    parser.add_argument(
        "--programs",
        type=Path,
        nargs=2,
        metavar=("BASE", "NEW"),
        help="with --instructions: two servers that are built already",
    )
    parser.add_argument(
        "--packages", action="store_true", help="only this: the Debian packages that may be installed"
    )
    parser.add_argument(
        "--case", type=lambda it: it.split(","), metavar="CASE,…", help="such as 1x1 or 50x10 or up"
    )
    parser.add_argument(
        "--servers", type=some_of(names), default=names, metavar="SERVER,…", help=f"of {', '.join(names)}"
    )
    parser.add_argument("--rounds", type=int, help="default 5; curves take at most 3")
    parser.add_argument("--seconds", type=float, help="how long a measurement takes about, default 1")
    parser.add_argument(
        "--output",
        type=Path,
        help="where to write; docs for a full run, otherwise bench in the target folder",
    )
    parser.add_argument(
        "--no-install", action="store_true", help="do not install Debian packages that are missing"
    )
    parser.add_argument(
        "--redraw",
        action="store_true",
        help="measure nothing, write page and picture from benchmarks.json again",
    )
    chosen = parser.parse_args()
    full = not (chosen.quick or chosen.only or chosen.case or chosen.servers != names)
    chosen.output = chosen.output or (
        rivals.ROOT / "docs" if full or chosen.redraw else rivals.TARGET / "bench"
    )
    if chosen.programs and not chosen.instructions:
        parser.error("--programs is for --instructions")
    chosen.only = chosen.only or [it for it in PARTS if not (chosen.quick and it == "instructions")]
    chosen.rounds = chosen.rounds or (1 if chosen.quick else 5)
    chosen.seconds = chosen.seconds or (0.3 if chosen.quick else 1.0)
    return chosen


def check(values, known, parser):
    for value in values:
        if value not in known:
            parser.error(f"{value}: not one of {', '.join(known)}")
    return values


def main():
    chosen = options()
    if chosen.redraw:
        write(json.loads((chosen.output / "benchmarks.json").read_text()), chosen.output)
        return 0
    if chosen.packages:
        print(*PACKAGES.values(), *(it for server in rivals.ALL for it in server.packages))
        return 0
    counts = chosen.instructions or "instructions" in chosen.only
    programs = ["h2load", "valgrind"] if counts else ["h2load"]
    needed = [PACKAGES[it] for it in programs if not shutil.which(it)]
    if needed and (chosen.no_install or subprocess.run([rivals.ROOT / ".ci/install", *needed]).returncode):
        print(f"missing: {' '.join(needed)} (Debian packages)", file=sys.stderr)
        return 1
    if chosen.instructions:
        return base.compare(chosen.programs, chosen.rounds)
    servers, missing = rivals.prepare(chosen.servers, not chosen.no_install)
    for server in list(servers):
        try:
            measure.verify(server)
        except Failed as error:
            servers.remove(server)
            missing[server.name] = str(error)
            print(f"{server.name} is left out: {error}", flush=True)
    if "touchdown" in missing:
        return 1
    todo = raise_limit(jobs(servers, chosen))
    load = os.getloadavg()[0]
    all_before, stolen_before = processor()
    command = "make bench" + (f" BENCH={shlex.quote(shlex.join(sys.argv[1:]))}" if sys.argv[1:] else "")
    about = {
        "date": time.strftime("%Y-%m-%d"),
        "command": command,
        "rounds": chosen.rounds,
        "seconds": chosen.seconds,
        "machine": machine(),
        "tools": tools(),
        "versions": {it.key: it.version for it in servers},
        "missing": missing,
    }
    failures = measure_all(todo, chosen)
    all_after, stolen_after = processor()
    stolen = 100 * (stolen_after - stolen_before) / max(1, all_after - all_before)
    about["quiet"] = (
        f"load average {load:.1f} before the first round; {stolen:.1f} % of the time went to other guests of the host"
    )
    results = [
        {
            "part": job.part,
            "case": job.case,
            "server": job.key,
            "figures": {key: [float(f"{run[key]:.5g}") for run in job.runs] for key in job.runs[0]},
        }
        for job in todo
        if job.runs
    ]
    raw = {"about": about, "failures": failures, "results": results}
    save(raw, chosen.output)
    summary(write(raw, chosen.output))
    ours = [it for it in failures if it["server"].startswith("touchdown")]
    if ours:
        print(f"\ntouchdown failed in {len(ours)} measurements", file=sys.stderr)
    return 1 if ours else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        # The server of the moment was ended on the way here.
        sys.exit(130)
