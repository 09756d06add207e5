"""What was measured, as a page: docs/benchmarks.md and its picture."""

from plot import Picture

NAMES = {
    "touchdown": "touchdown",
    "tonic": "tonic",
    "grpcio": "grpcio + pool",
    "cpp": "gRPC C++",
    "go": "grpc-go",
    "touchdown16": "touchdown, 16 workers",
}

UNARY = (
    ("1x1", "1×1"),
    ("2x32", "2×32"),
    ("50x10", "50×10"),
    ("1000x1", "1000×1"),
    ("16KiB", "16 KiB, 2×8"),
    ("1MiB", "1 MiB, 1×2"),
)
STREAMS = (("up", "to the server"), ("down", "to the client"))
INSTRUCTIONS = (("1x1", "1×1"), ("2x32", "2×32"))


class Results:
    """The medians of what was measured, by part, case and server."""

    def __init__(self, raw):
        self.about = raw["about"]
        self.failures = raw["failures"]
        self.medians = {}
        for entry in raw["results"]:
            self.medians[entry["part"], entry["case"], entry["server"]] = {
                figure: median(values) for figure, values in entry["figures"].items()
            }

    def get(self, part, case, server, figure):
        return self.medians.get((part, case, server), {}).get(figure)

    def failed(self, part, case, server):
        return any((it["part"], it["case"], it["server"]) == (part, case, server) for it in self.failures)

    def servers(self, part):
        """Those that were measured in this part, in the order of the names."""
        found = {server for (it, _, server) in self.medians if it == part}
        return [it for it in NAMES if it in found]

    def cases(self, part, known=None):
        found = []
        for it, case, _ in self.medians:
            if it == part and case not in found:
                found.append(case)
        if known is None:
            return sorted(found, key=int)
        return [(case, label) for case, label in known if case in found]

    def ratio(self, part, case, rival, figure):
        """Above 1, touchdown is the better: it does more, or takes less."""
        ours, theirs = (self.get(part, case, it, figure) for it in ("touchdown", rival))
        if not ours or not theirs:
            return None
        return ours / theirs if figure == "rate" else theirs / ours


def median(values):
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def rounds(about):
    return "1 round" if about["rounds"] == 1 else f"{about['rounds']} rounds"


def time(microseconds):
    if microseconds < 1_000:
        return f"{microseconds:.0f} µs"
    digits = 2 if microseconds < 10_000 else 1 if microseconds < 100_000 else 0
    return f"{microseconds / 1_000:.{digits}f} ms"


def count(number):
    return f"{number:,.0f}"


def seconds(number):
    return f"{number:.2f} s" if number < 100 else f"{number:.0f} s"


def mebibytes(number):
    return f"{number:.0f} MiB"


def ratio(number):
    return f"{number:.1f}" if number >= 9.95 else f"{number:.2f}"


def table(results, part, cases, figure, form, ratios=True):
    """A row for each case, a column for each server, touchdown's ratio in brackets."""
    servers = results.servers(part)
    lines = [
        "| | " + " | ".join(NAMES[it] for it in servers) + " |",
        "|---|" + "---:|" * len(servers),
    ]
    for case, label in cases:
        cells = []
        for server in servers:
            value = results.get(part, case, server, figure)
            if value is None:
                cells.append("failed" if results.failed(part, case, server) else "–")
                continue
            of = results.ratio(part, case, server, figure) if ratios and server != "touchdown" else None
            cells.append(form(value) + (f" ({ratio(of)})" if of else ""))
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def page(results, servers):
    about = results.about
    machine = about["machine"]
    out = [
        "# Benchmarks",
        "",
        "Written by `make bench`; text and figures are replaced by the next run.",
        "",
        f"- **Measured** on {about['date']} by `{about['command']}`, medians of {rounds(about)}",
        f"- **Machine:** {machine['cpu']}, {machine['cores']} cores, {machine['memory']}; {machine['system']}, Linux {machine['kernel']}",
        f"- **Compilers and tools:** {about['tools']}",
        f"- **How quiet it was:** {about['quiet']}",
    ]
    for name, why in about["missing"].items():
        out.append(f"- **{name} was left out:** {why.splitlines()[0]}")
    out += [
        "",
        "![Ratios as bars, scale as curves](benchmarks.svg)",
        "",
        "In every table the number in brackets is touchdown against that server. **Above 1, touchdown is the better**:"
        " it does that many times as much, or takes that many times less.",
    ]
    if results.cases("unary", UNARY):
        out += [
            "",
            "## One request, one reply",
            "",
            "The load is named *connections × calls at once on each*. Messages are 32 bytes where no size is given;"
            " replies are 8 to 9 bytes longer. The server shares the cores with h2load, so throughput is what both"
            " reach together, and the processor's time is the sharper figure.",
        ]
        for title, figure, form in (
            ("Calls a second", "rate", count),
            ("Processor time of the server for 100,000 calls", "cpu", seconds),
            ("Latency, median", "p50", time),
            ("Latency, 99th percentile", "p99", time),
            ("Peak memory of the server (resident)", "memory", mebibytes),
        ):
            cases = results.cases("unary", UNARY)
            out += ["", f"### {title}", "", table(results, "unary", cases, figure, form)]
    if results.cases("streams", STREAMS):
        cases = results.cases("streams", STREAMS)
        out += [
            "",
            "## Streams",
            "",
            "Messages of 32 bytes in calls of 10,000 messages, one call at a time on one connection, by a client of our"
            " own that takes little of the processor (`benches/rivals/src/bin/bench_streams.rs`).",
            "",
            "### Messages a second",
            "",
            table(results, "streams", cases, "rate", count),
            "",
            "### Processor time of the server for 100,000 messages",
            "",
            table(results, "streams", cases, "cpu", seconds),
        ]
    if results.cases("instructions", INSTRUCTIONS):
        cases = results.cases("instructions", INSTRUCTIONS)
        out += [
            "",
            "## Instructions a call",
            "",
            "Counted by valgrind, in user space, as the difference of a run of 2,500 calls and one of 500. This is the"
            " figure that hardly depends on what else the machine does: runs differ by 1 % at 2×32, and by 5 % at 1×1, where"
            " threads that wait for work count as well. It knows nothing of the kernel, of caches, or of waiting, and"
            " valgrind runs one thread at a time, some 50 times slower than the processor.",
            "",
            table(results, "instructions", cases, "instructions", count),
        ]
    scale = [
        (
            "workers",
            "Workers",
            "50 connections × 10 calls, handlers that do not block, so many threads that run handlers.",
        ),
        (
            "workers-blocking",
            "Workers, handlers that block",
            "The same with handlers that block for 1 ms: so many workers can do at most 1,000 calls a second each.",
        ),
        ("connections", "Connections", "One call at a time on each of so many connections."),
        (
            "blocking",
            "Blocking handlers",
            "64 connections, one call at a time on each; the handler blocks for so many milliseconds. touchdown and"
            " grpcio have 64 threads for handlers, the others take as many as they like; touchdown with its 16"
            " workers is in the table as well. At 100 ms, 64 callers can make 640 calls a second, and 16 workers"
            " can answer 160.",
        ),
    ]
    if any(results.cases(part) for part, _, _ in scale):
        out += ["", "## Scale"]
    for part, title, text in scale:
        if not results.cases(part):
            continue
        cases = [(it, f"{int(it):,}" + (" ms" if part == "blocking" else "")) for it in results.cases(part)]
        out += [
            "", f"### {title}", "", text, "",
            "Calls a second:", "", table(results, part, cases, "rate", count, ratios=False), "",
            "Latency, 99th percentile:", "", table(results, part, cases, "p99", time, ratios=False),
        ]  # fmt: skip
    if results.failures:
        out += ["", "## What failed", ""]
        out += [
            f"- {it['part']}, {it['case']}, {NAMES[it['server']]}: {' '.join(it['why'].split())}"
            for it in results.failures
        ]
    out += ["", "## The servers", ""]
    out += [
        f"- **{it.name}** {about['versions'][it.key]}: {it.setup}."
        for it in servers
        if it.key in about["versions"]
    ]
    out += [
        "",
        "All serve `proto/greeter.proto`, without TLS, on loopback, and are built with optimisation and otherwise as"
        " their users build them. gRPC C++ and grpc-go are Debian's packages, so older than what their projects"
        " release; a newer one may do better.",
        "",
        "## How it is measured",
        "",
        "- Each figure is the median of the rounds; those of scale take 3 at the most, instructions 2. In each round"
        " every case is run, and in each case every server in turn, beginning with another one each time, so that a"
        " slow minute of the machine meets all of them.",
        "- Every measurement starts a fresh server, warms it up under the same load until that takes 0.2 s, takes from"
        f" this how many calls fill {about['seconds']} s, and measures those.",
        "- h2load makes the calls with one thread. Opening the connections is part of the time. Latencies are those"
        " in its log, one for each call.",
        "- A run in which a call fails is no measurement: all must have succeeded, and the replies must have exactly the"
        " bytes that they should. Before the first round one reply of each server is compared in full.",
        "- Processor time is that of the server process with all its threads, in user space and kernel, from the"
        " process's clock.",
        "- With 2 cores and a load generator that takes one, differences of 5 % mean nothing.",
        "- `make bench BENCH=--help` lists how to measure a part.",
        "",
        "[benchmarks.json](benchmarks.json) has the figures of every round.",
        "",
    ]
    return "\n".join(out)


def picture(results):
    picture = Picture(NAMES)
    rivals = [it for it in NAMES if it in set(results.servers("unary")) | set(results.servers("streams"))]
    rivals = [it for it in rivals if not it.startswith("touchdown")]
    about = results.about
    if rivals:
        picture.y = 26
        picture.text(
            62, picture.y, "touchdown against each rival: above 1, touchdown is the better", kind="title"
        )
        picture.legend(rivals)
        unary, streams = results.cases("unary", UNARY), results.cases("streams", STREAMS)
        cases = [(("unary", case), label) for case, label in unary]
        cases += [(("streams", case), f"messages\n{label}") for case, label in streams]
        latencies = [it for it in cases if it[0][0] == "unary"]
        for title, some, figure in (
            ("Throughput", cases, "rate"),
            ("Processor time of the server", cases, "cpu"),
            ("Latency, median", latencies, "p50"),
            ("Latency, 99th percentile", latencies, "p99"),
        ):
            if some:
                picture.ratios(title, some, rivals, lambda case, key: results.ratio(*case, key, figure))
    every = [it for it in NAMES if it in {server for (_, _, server) in results.medians}]
    picture.y += 14
    picture.legend(every)
    if results.cases("instructions", INSTRUCTIONS):
        picture.columns(
            "Instructions a call",
            results.cases("instructions", INSTRUCTIONS),
            results.servers("instructions"),
            lambda case, key: results.get("instructions", case, key, "instructions"),
        )
    for part, title, below in (
        ("workers", "50×10", "workers"),
        ("workers-blocking", "50×10, handlers block for 1 ms", "workers"),
        ("connections", "one call on each connection", "connections"),
        ("blocking", "64×1, handlers that block", "ms that a handler blocks"),
    ):
        xs = results.cases(part)
        if not xs:
            continue

        def series(figure, unit):
            return {
                server: [(results.get(part, x, server, figure) or 0) / unit for x in xs]
                for server in results.servers(part)
            }

        labels = [int(it) for it in xs]
        logarithmic = part == "blocking"
        picture.curves(
            [
                (f"Calls a second, {title}", below, labels, series("rate", 1), logarithmic),
                ("99th percentile of the latency, ms", below, labels, series("p99", 1_000), True),
            ]
        )
    machine = about["machine"]
    picture.note(
        f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}; {about['date']}; medians of {rounds(about)}"
    )
    versions = ", ".join(f"{NAMES[key]} {it.split(' ')[0]}" for key, it in about["versions"].items())
    picture.note(versions)
    return picture.svg()
