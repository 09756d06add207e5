"""Instructions a call, now and at another revision: `make bench BENCH=--instructions BASE=REVISION`."""

import os
import shutil
import statistics

import measure
from measure import Failed, Load
from rivals import ROOT, TARGET, Unavailable, cargo, run

LOAD = Load(2, 32)
# Enough calls that what a run does by chance (which thread polls when) is no part of a percent.
FEW, MANY = 1_000, 6_000
EXAMPLE = "greeter_server"


class Program:
    """A server to measure: `command` is what measure.py starts."""

    def __init__(self, name, path):
        self.name, self.path = name, path
        self.figures = []

    def command(self, address):
        return [str(self.path), address]

    def figure(self):
        return statistics.median(self.figures)

    def __str__(self):
        spread = f"{min(self.figures):,.0f} to {max(self.figures):,.0f}"
        return f"{self.name}: {self.figure():,.0f} instructions a call ({spread})"


def base_revision():
    """The commit to compare with, and how it is called."""
    name = os.environ.get("BASE")
    if not name:
        try:
            name = run("git", "-C", ROOT, "describe", "--tags", "--abbrev=0", "HEAD~1")
        except Unavailable:
            name = "HEAD~1"
    return run("git", "-C", ROOT, "rev-parse", "--verify", f"{name}^{{commit}}"), name


def build(sources):
    """The server of these sources. C-core is compiled once for all, since it is the same package for cargo."""
    environment = dict(os.environ, CARGO_TARGET_DIR=str(TARGET))
    cargo("build", "--release", "--locked", "--example", EXAMPLE, cwd=sources, env=environment)
    return TARGET / "release/examples" / EXAMPLE


def build_base(commit):
    """The server of another revision, kept for the next time."""
    folder = TARGET / "base"
    program = folder / f"{EXAMPLE}-{commit}"
    if program.exists():
        return program
    sources = folder / "sources"
    # What an interrupted run may have left.
    shutil.rmtree(sources, ignore_errors=True)
    run("git", "-C", ROOT, "worktree", "add", "--force", "--detach", sources, commit)
    try:
        shutil.copyfile(build(sources), program)
        program.chmod(0o755)
    finally:
        run("git", "-C", ROOT, "worktree", "remove", "--force", sources)
    return program


def compare(programs, rounds):
    """Measures both in turns, and prints the ratio."""
    try:
        if programs:
            before, now = (Program(str(it), it) for it in programs)
        else:
            commit, name = base_revision()
            before = Program(f"{name} ({commit[:7]})", build_base(commit))
            now = Program("now", build(ROOT))
        for turn in range(rounds):
            for program in (before, now) if turn % 2 == 0 else (now, before):
                program.figures.append(measure.instructions(program, LOAD, FEW, MANY)["instructions"])
                print(f"[{turn + 1}/{rounds}] {program.name}: {program.figures[-1]:,.0f}", flush=True)
    except (Failed, Unavailable) as error:
        print(error)
        return 1
    print(f"\n{before}\n{now}\nratio: {now.figure() / before.figure():.4f}")
    return 0
