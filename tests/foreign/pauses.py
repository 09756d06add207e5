"""Stops and replaces servers while something pauses, and fails if one call is lost, or one is miscounted.

What pauses is the network (a wire that holds its packets, and drops none), the server (SIGSTOP, and the freezer that
`docker pause` uses), its clients (SIGSTOP), or the new process of an upgrade. The stop is SIGTERM, or an upgrade by
SIGUSR2; the clients are grpcio for Python, grpc-js, and one that sends its own frames; the way is TCP, a unix socket, or
TLS.

A call is lost if a client has sent it on a connection that the server had accepted, and it ends in any way but as its
handler says. It is not lost if the server's last GOAWAY excluded it: such a call is sent again, which the libraries do by
themselves. It is miscounted if what the server says in its report does not agree with what the callers saw: more or fewer
calls completed than answers came, callers who have left without having done so, or "cleanly" although something was lost.

Silent clients, who have not made a call or have nothing more to say, may not cost a stop a second. The last column is
what each stop took, from SIGTERM, or from the moment when the new process takes over, to the exit.

Exit code: 0 if nothing was lost or miscounted, no stop took too long, and every server exited with 0; 1 if not; 2 if a
scenario could not run. What this machine lacks the means for is skipped, and said so.
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import traceback

import network
from pauses_scenarios import SCENARIOS, Run
from pauses_stage import CannotRun, Skipped, end_descendants

COUNTED = ("calls", "landed", "excluded", "lost", "miscounted")
HEAD = f"{'scenario':34} {'calls':>6} {'landed':>6} {'excl.':>6} {'lost':>6} {'miscounted':>10} {'exit':>8} {'stop':>8}"


def miscounted(result):
    """What the servers say that does not agree with what their callers saw, as (how many, in words)."""
    outcome, reports = result.outcome, result.stage.reports()
    completed = sum(report.count("completed") for report in reports)
    left = sum(report.count("left") for report in reports)
    # What had not reached the caller's kernel when the server gave it up may lie in the server's, which goes on sending.
    undelivered = sum(report.count("undelivered") for report in reports)
    at_most = completed + undelivered
    if not completed <= outcome.landed <= at_most:
        wrong = max(completed - outcome.landed, outcome.landed - at_most)
        yield wrong, f"{completed} completed and {undelivered} undelivered, but {outcome.landed} answers came"
    # A client that never comes back may be said to have left.
    if left > result.gone:
        yield left - result.gone, f"{left} left by their callers, but no more than {result.gone} have left"
    if outcome.lost and all(report.is_clean for report in reports):
        yield 1, f"it stopped cleanly, but {outcome.lost} calls did not land"


def run_one(options):
    """Runs one scenario and writes what came of it, as JSON."""
    said = {"name": options.run, "well": False}
    scenario, rounds = SCENARIOS[options.run], []
    network.adopt_orphans()
    try:
        for number in range(scenario.times):
            with contextlib.ExitStack() as cleanup:
                cleanup.callback(end_descendants)
                rounds.append(verdict(scenario(Run(options, cleanup, f"{scenario.name}-{number + 1}"))))
        said |= together(rounds)
    except Skipped as why:
        said |= {"well": True, "skipped": str(why)}
    except Exception as error:
        trace = "" if isinstance(error, CannotRun) else traceback.format_exc()
        said |= {"cannot": f"{error}", "trace": trace}
    print(json.dumps(said), flush=True)
    # A thread that still waits for a process is not waited for.
    os._exit(0)


def verdict(result):
    outcome, stage = result.outcome, result.stage
    wrong = list(miscounted(result))
    problems = [*result.problems, *(words for _, words in wrong)]
    if result.limit_s is not None and stage.took_s > result.limit_s:
        problems.append(f"the stop may take {result.limit_s:g} s")
    if not result.may_be_forced and any(stage.exit_codes):
        problems.append("a server did not exit with 0")
    # Those whose clients are gone had nobody to land at.
    lost = max(outcome.lost - result.gone, 0)
    return {
        "well": not lost and not problems,
        "calls": outcome.calls,
        "landed": outcome.landed,
        "excluded": outcome.excluded,
        "lost": lost,
        "miscounted": sum(count for count, _ in wrong),
        "exits": stage.exit_codes,
        "took_s": stage.took_s,
        "details": [
            *(f"{count} × {problem}" for problem, count in outcome.problems.most_common(5)),
            *problems,
            *(report.line for report in stage.reports()),
        ],
    }


def together(rounds):
    """The verdict on all rounds of a scenario. Its time is the longest, its details those of what failed."""
    sums = {column: sum(it[column] for it in rounds) for column in COUNTED}
    return sums | {
        "well": all(it["well"] for it in rounds),
        "exits": [code for it in rounds for code in it["exits"]],
        "took_s": max(it["took_s"] for it in rounds),
        "details": [line for it in rounds if not it["well"] for line in it["details"]],
    }


def run_apart(options, name):
    """Runs a scenario in a process of its own, so that it has namespaces and children for itself."""
    passed_on = [f"--server={options.server}", f"--node={options.node}", f"--node-modules={options.node_modules}"]
    if options.tls_server:
        passed_on.append(f"--tls-server={options.tls_server}")
    if options.logs:
        passed_on.append(f"--logs={options.logs}")
    command = [sys.executable, "-B", __file__, f"--run={name}", *passed_on]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, preexec_fn=network.die_with_parent)
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return {"name": name, "well": False, "cannot": f"it ended with {done.returncode}: {done.stdout}"}


def show(said):
    name = said["name"]
    if "skipped" in said:
        print(f"{name:34} skipped: {said['skipped']}", flush=True)
    elif "cannot" in said:
        print(f"{name:34} cannot run: {said['cannot']} {said.get('trace', '')}", flush=True)
    else:
        # One for each process, or one for all of them.
        exits = "+".join(map(str, said["exits"] if len(set(said["exits"])) > 1 else said["exits"][:1]))
        numbers = (f"{said[column]:6}" for column in ("calls", "landed", "excluded", "lost"))
        mark = "" if said["well"] else "  FAILED"
        print(f"{name:34} {' '.join(numbers)} {said['miscounted']:10} {exits:>8} {said['took_s']:6.2f} s{mark}")
        if not said["well"]:
            for line in said["details"]:
                print(f"    {line}")
        sys.stdout.flush()


def chosen(options):
    if options.only:
        return [it for it in SCENARIOS.values() if any(re.search(pattern, it.name) for pattern in options.only)]
    return [it for it in SCENARIOS.values() if it.short or not options.short]


def run_all(options):
    print(HEAD)
    results, waiting = [], []
    for scenario in chosen(options):
        if scenario.needs_node and not shutil.which(options.node):
            print(f"{scenario.name:34} skipped: needs Node")
        elif scenario.alone:
            # What it takes is the question, so nothing else may have the processor.
            results.append(run_apart(options, scenario.name))
            show(results[-1])
        else:
            waiting.append(scenario)
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for job in concurrent.futures.as_completed(pool.submit(run_apart, options, it.name) for it in waiting):
            results.append(job.result())
            show(results[-1])
    ran = [it for it in results if "calls" in it]
    sums = {column: sum(it[column] for it in ran) for column in COUNTED}
    print(
        f"{len(ran)} scenarios, {len(results) - len(ran)} skipped or failed to run: {sums['calls']} calls, "
        f"{sums['landed']} landed, {sums['excluded']} excluded, {sums['lost']} lost, {sums['miscounted']} miscounted"
    )
    bad = [it["name"] for it in results if not it["well"]]
    if bad:
        print(f"FAILED: {len(bad)} scenarios: {' '.join(bad)}")
    else:
        print("PASSED")
    if any("cannot" in it for it in results):
        sys.exit(2)
    sys.exit(1 if bad else 0)


def parse_options():
    opening, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=opening, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    beside_the_venv = str(pathlib.Path(sys.prefix).parent / "node_modules")
    add = parser.add_argument
    add("--server", help="the greeter_server")
    add("--tls-server", help="the board_server; without it, scenarios with TLS are skipped")
    add("--short", action="store_true", help="those that take a minute, all together")
    add("--only", action="append", metavar="PATTERN", help="those whose name has it; may be given more than once")
    add("--list", action="store_true", help="name them")
    add("--jobs", type=int, default=6, help="how many run at the same time: mostly they wait")
    add("--logs", help="keep the logs of the servers in this folder")
    add("--node", default="node", help="the Node program")
    add("--node-modules", default=os.environ.get("TOUCHDOWN_NODE_MODULES", beside_the_venv), help="where its packages are")
    add("--run", help=argparse.SUPPRESS)
    return parser, parser.parse_args()


def main():
    parser, options = parse_options()
    if options.list:
        print("\n".join(scenario.name for scenario in chosen(options)))
        return
    if not options.server:
        parser.error("--server is needed")
    if options.run:
        run_one(options)
    network.become_root_of_an_own_world()
    if options.logs:
        pathlib.Path(options.logs).mkdir(parents=True, exist_ok=True)
    run_all(options)


if __name__ == "__main__":
    main()
