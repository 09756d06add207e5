"""What hostile.py measured, judged and in words."""

import collections
import datetime
import json
import math
import os
import platform
import statistics

from hostile_stage import H2LOAD_RATE, percentile_99

KINDS = ("open", "new", "health", "h2load")
TIMES = 2
MORE_MS = 10
# So many times the limit may be the machine's fault: then it is measured once more.
CLOSE = 3
# What other programs may have without being named: the callers of the other way are among them.
OTHERS_CORES = 0.5
# What the allocator keeps of what it was given back, and what the callers' connections take.
AFTER_MIB = 24
HEAD = (
    f"{'hole':6} {'attack':16} {'way':5} {'sent':>9} {'calls':>6} {'lost':>5} "
    f"{'p99 open':>15} {'p99 new':>15} {'p99 h2load':>15} {'memory':>13} {'5 s after':>17}"
)
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

# By way, with a burner or without, and by kind of caller: the 99th percentiles and the medians that were measured without an
# attack, in ms. The one before other attacks counts too, so that neither a lucky nor an unlucky second decides.
_baselines = collections.defaultdict(list)
_medians = collections.defaultdict(list)


def row_of(hole, stage, attack):
    """What an attack did, and what of it may not be."""
    window, said = stage.windows[attack.name], stage.said[attack.name]
    is_first = attack is hole.attacks[0]
    row = {
        "hole": hole.name,
        "attack": attack.name,
        "what": attack.what,
        "way": stage.way,
        "said": said,
        "calls": 0,
        "lost": 0,
        "statuses": collections.Counter(),
        "baseline_ms": {},
        "p99_ms": {},
        "after_ms": {},
        "grown_mib": max(0.0, window.peak_mib - stage.before_mib),
        "bound_mib": hole.bound_mib,
        "after_mib": max(0.0, stage.after_mib - stage.before_mib),
        "others_cores": window.others_cores,
        "problems": [],
        "is_close": True,
    }
    problems, slow = row["problems"], 0
    if not stage.is_alive:
        problems.append("the server has ended")
    for kind in KINDS:
        known = _baselines[stage.way, hole.burns, kind]
        took, failed = stage.calls_of(stage.baseline, kind)
        if is_first:
            known.append(percentile_99(took))
            _medians[stage.way, hole.burns, kind] += took
            if failed:
                problems.append(f"{kind}: {len(failed)} calls failed before the attack")
        baseline = row["baseline_ms"][kind] = statistics.median(known)
        if kind == "health":
            # Those are few, and on a channel that is open, too.
            baseline = max(baseline, row["baseline_ms"]["open"])
        limit = TIMES * baseline + MORE_MS
        for when, its_window in (("p99", window), ("after", stage.recovery)):
            took, failed = stage.calls_of(its_window, kind)
            p99 = row[f"{when}_ms"][kind] = percentile_99(took)
            words = "in the attack" if when == "p99" else "5 s after it"
            if failed:
                problems.append(f"{kind}: {len(failed)} of {len(took)} calls failed {words}")
            if not took:
                problems.append(f"{kind}: no call {words}")
            elif p99 > limit:
                slow += 1
                row["is_close"] &= p99 <= CLOSE * limit
                problems.append(f"{kind}: {p99:.1f} ms {words}, at most {limit:.1f} ms")
            if when == "p99":
                row["calls"] += len(took)
                row["lost"] += len(failed)
                row["statuses"].update(failed)
    if row["grown_mib"] > hole.bound_mib:
        problems.append(f"{row['grown_mib']:.0f} MiB more, at most {hole.bound_mib} MiB")
    if row["after_mib"] > AFTER_MIB:
        problems.append(f"{row['after_mib']:.0f} MiB more 5 s after it, at most {AFTER_MIB} MiB")
    if hole.name == "quiet":
        problems += quiet_problems(row, stage, window)
    row["is_close"] &= len(problems) == slow
    return row


def quiet_problems(row, stage, window):
    """What is asked of a server whose clients do as they should: their streams live, and calls are as fast as without."""
    said = row["said"]
    if said["landed"] != said["streams"]:
        yield f"{said['streams'] - said['landed']} of {said['streams']} quiet streams did not end well"
    for kind in ("open", "h2load"):
        before = statistics.median(_medians[stage.way, False, kind])
        took, _ = stage.calls_of(window, kind)
        if took and statistics.median(took) > 1.25 * before + 0.25:
            yield f"{kind}: {statistics.median(took):.2f} ms in the middle, {before:.2f} ms without the streams"


def _milliseconds(value):
    return "never" if math.isinf(value) else f"{value:.1f}"


def _both(row, kind):
    return f"{_milliseconds(row['baseline_ms'][kind])} → {_milliseconds(row['p99_ms'][kind])}"


def _sent(row):
    size = row["said"]["bytes"]
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 1024:.0f} KiB"


def rows_in_words(rows):
    lines = []
    for row in rows:
        lines.append(
            f"{row['hole']:6} {row['attack']:16} {row['way']:5} {_sent(row):>9} {row['calls']:6} {row['lost']:5} "
            f"{_both(row, 'open'):>15} {_both(row, 'new'):>15} {_both(row, 'h2load'):>15} "
            f"{row['grown_mib']:4.0f} of {row['bound_mib']:3} M "
            f"{_milliseconds(row['after_ms']['open']):>8} {row['after_mib']:4.0f} MiB"
            f"{'  FAILED' if row['problems'] else ''}"
        )
        lines += (f"       {problem}" for problem in row["problems"])
        if row["problems"]:
            if row["others_cores"] > OTHERS_CORES:
                lines.append(f"       other programs had {row['others_cores']:.1f} cores meanwhile")
            statuses = ", ".join(f"{count} {status}" for status, count in row["statuses"].items())
            said = row["said"]
            goaways = ", ".join(f"{count} × GOAWAY {text}" for text, count in list(said["goaways"].items())[:3])
            lines.append(
                f"       attacker: {said['connections']} connections, {said['ended']} ended, {said['refused']} refused; "
                f"{goaways or 'no GOAWAY'}; failed calls: {statuses or 'none'}"
            )
    return "\n".join(lines)


def as_json(rows):
    """What took for ever is `null`."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(it) for key, it in value.items()}
        return None if isinstance(value, float) and math.isinf(value) else value

    return json.dumps([plain(row) for row in rows], indent=1)


def write_page(page, rows, holes):
    """Puts the table between the marks of a page."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    lines = [
        f"Measured by `make hostile` on {datetime.date.today():%d %B %Y}, {os.cpu_count()} cores, {platform.machine()}. "
        f"Times are 99th percentiles in ms, without the attack → with it: of grpcio on open connections (150 calls a "
        f"second), of grpcio with a new connection for each call (8), and of h2load ({2 * H2LOAD_RATE}).",
        "",
        "| hole | attack | way | sent | lost calls | open | new | h2load | memory, bound | verdict |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    names = {hole.name: hole.what for hole in holes}
    for row in rows:
        first = f"{row['hole']}: {names[row['hole']]}" if row["hole"].isdigit() else names[row["hole"]]
        verdict = "nobody notices" if not row["problems"] else f"**{row['problems'][0]}**"
        lines.append(
            f"| {first} | {row['what']} | {row['way']} | {_sent(row)} | {row['lost']} of {row['calls']} | {_both(row, 'open')} "
            f"| {_both(row, 'new')} | {_both(row, 'h2load')} | {row['grown_mib']:.0f}, {row['bound_mib']} MiB | {verdict} |"
        )
    page.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{after}")
