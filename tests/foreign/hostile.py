"""Attacks a server while innocent clients call it, and fails if one of them notices.

The attackers send raw frames over the loopback device as fast as it takes them: one attacker at a time, on one connection
or many, as its row says. Beside it call h2load and a client of grpcio's for Python, at a pace that leaves the server idle:
on open connections, on a new connection for each call, and for the server's health. The server has its default settings, once
with plain text and once with TLS.

In each attack no call of theirs may be lost or refused, and their 99th percentile may be at most twice the baseline and 10 ms;
5 s after the last attack on a server the same holds. The server's memory may grow by no more than the bound, counted from
before the first attack on it, and 5 s after the last it is back. The baseline is measured before. The machine may have two
cores only, and the attacker takes one of them, which is no fault of the server's; so beside the baseline of a flood a process
burns a core, too. Where nothing is wrong but that calls took up to three times what they may, something else may have had the
machine, and the hole is measured once more.

The last scenario, "quiet", is no attack: 50 clients have 16 streams each open and say nothing on them. Calls are to be as
fast as without, and each stream is to end well. `--only control` runs the whole with an attacker that leaves the server alone,
and has to pass.

Exit code: 0 if nobody noticed, 1 if somebody did, 2 if a scenario could not run.
"""

import argparse
import contextlib
import pathlib
import sys
import traceback

from hostile_attacks import MOST_CALLS
from hostile_stage import CannotRun, Stage
from hostile_table import HEAD, as_json, row_of, rows_in_words, write_page

# How long an attack lasts, if nothing else is said.
ATTACK_S = 1.5
# One of several in a row.
SHORT_S = 0.7


class Attack:
    def __init__(self, name, what, seconds=ATTACK_S):
        self.name, self.what, self.seconds = name, what, seconds


class Hole:
    """Attacks on one server, one after the other.

    `bound_mib` is how much its memory may grow meanwhile, with the reason in docs/hostile.md; `burns` whether the attacker
    takes a core for itself.
    """

    def __init__(self, name, what, bound_mib, attacks, burns=True, short=False):
        self.name, self.what, self.bound_mib = name, what, bound_mib
        self.attacks, self.burns, self.short = attacks, burns, short

    def only(self, names):
        """This hole with those of its attacks that are named, or with all if it is named itself."""
        attacks = [it for it in self.attacks if self.name in names or it.name in names]
        return Hole(self.name, self.what, self.bound_mib, attacks, self.burns, self.short)


HOLES = [
    Hole(
        "0",
        "the polling thread captured",
        32,
        [
            Attack("metadata", "calls with bad metadata", SHORT_S),
            Attack("literals", "a header block without end, of literals", SHORT_S),
            Attack("indexed", "a header block without end, of indices", SHORT_S),
            Attack("empty-data", "empty DATA", SHORT_S),
            Attack("settings", "SETTINGS", SHORT_S),
            Attack("window", "WINDOW_UPDATE", SHORT_S),
            Attack("priority", "PRIORITY", SHORT_S),
            Attack("ping", "PING", SHORT_S),
        ],
        short=True,
    ),
    Hole(
        "1",
        "workers held by idle streams",
        32,
        [
            Attack("silent", "100 client streams that say nothing"),
            Attack("untaken-streams", "100 server streams that are not read"),
        ],
        burns=False,
        short=True,
    ),
    Hole(
        "2",
        "answers not taken",
        32,
        [Attack("untaken-answers", f"2 connections, {MOST_CALLS} answers each")],
        burns=False,
        short=True,
    ),
    Hole(
        "3",
        "nothing holds before SETTINGS are acknowledged",
        32,
        [
            Attack("early-streams", "20,000 streams"),
            Attack("early-strings", "10 headers of 15 MiB"),
        ],
    ),
    Hole("4", "calls without a message", 192, [Attack("headers-alone", f"64 connections, {MOST_CALLS} calls each")], burns=False),
    Hole("5", "one message of 4 GiB", 32, [Attack("message", "as fast as there is room")]),
    Hole("6", "connections without calls", 64, [Attack("idle", "600 connections", 3.0)], burns=False, short=True),
    Hole(
        "7",
        "resets that the server makes",
        32,
        [
            Attack("trailers", "bad trailers behind whole requests", SHORT_S),
            Attack("padding", "padded DATA", SHORT_S),
            Attack("no-path", "calls without a path", SHORT_S),
        ],
    ),
    Hole(
        "quiet",
        "well-behaved clients with quiet streams",
        64,
        [Attack("quiet", "50 clients, 16 streams each")],
        burns=False,
        short=True,
    ),
]
# Whether what is measured is the server: an attacker that only takes the core that every attacker takes.
CONTROL = Hole("control", "no attack", 8, [Attack("burn", "a core, and nothing else")])


def run(hole, options):
    """The rows of a hole, for each way to the server."""
    with contextlib.ExitStack() as cleanup:
        stages = [Stage(options, cleanup, f"{hole.name}-{way}", way == "tls") for way in options.ways]
        for stage in stages:
            stage.start()
        for stage in stages:
            stage.await_callers()
        for stage in stages:
            stage.measure_baseline(hole.burns)
        for stage in stages:
            for attack in hole.attacks:
                stage.attack(attack)
        for stage in stages:
            stage.measure_recovery()
        for stage in stages:
            stage.finish()
        return [row_of(hole, stage, attack) for stage in stages for attack in hole.attacks]


def chosen(options):
    if not options.only:
        return [it for it in HOLES if it.short or not options.short]
    return [hole for hole in (it.only(options.only) for it in [*HOLES, CONTROL]) if hole.attacks]


def run_all(options):
    rows, failed_to_run = [], []
    if not options.json:
        print(HEAD)
    for hole in chosen(options):
        try:
            its_rows = run(hole, options)
            if any(row["problems"] for row in its_rows) and all(row["is_close"] for row in its_rows):
                print(f"{hole.name}: calls were a little slow; once more", file=sys.stderr, flush=True)
                its_rows = run(hole, options)
        except Exception as error:
            trace = "" if isinstance(error, CannotRun) else traceback.format_exc()
            failed_to_run.append(hole.name)
            print(f"{hole.name:8} cannot run: {error} {trace}", file=sys.stderr, flush=True)
            continue
        rows += its_rows
        if not options.json:
            print(rows_in_words(its_rows), flush=True)
    if options.json:
        print(as_json(rows))
    elif bad := [row for row in rows if row["problems"]]:
        print(f"FAILED: {len(bad)} of {len(rows)}")
    elif not failed_to_run:
        print("PASSED")
    if options.write:
        if failed_to_run or options.only or options.short:
            print("not written: not everything ran", file=sys.stderr)
        else:
            write_page(pathlib.Path(options.write), rows, HOLES)
    if failed_to_run:
        return 2
    return 1 if any(row["problems"] for row in rows) else 0


def parse_options():
    opening, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=opening, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--server", required=True, help="the greeter_server")
    add("--tls-server", help="the board_server; without it, nothing is attacked by TLS")
    add("--short", action="store_true", help="those that matter most, with plain text: half a minute")
    add("--only", action="append", metavar="NAME", help="a hole or an attack, such as 0 or ping; may be given more than once")
    add("--way", action="append", choices=["plain", "tls"], help="this way alone")
    add("--json", action="store_true", help="print what was measured as JSON")
    add("--write", metavar="PAGE", help="write the table into this page, docs/hostile.md")
    add("--logs", help="keep the logs of the servers in this folder")
    options = parser.parse_args()
    options.ways = options.way or (["plain"] if options.short else ["plain", "tls"])
    if not options.tls_server:
        options.ways = [way for way in options.ways if way != "tls"]
    if options.logs:
        pathlib.Path(options.logs).mkdir(parents=True, exist_ok=True)
    return options


if __name__ == "__main__":
    sys.exit(run_all(parse_options()))
