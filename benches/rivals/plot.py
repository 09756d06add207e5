"""The picture: ratios as bars, scale as curves. Plain SVG, for light and dark pages."""

from html import escape
from math import ceil, floor, log2, log10

WIDTH = 960
LEFT, RIGHT = 62, 14
# Told apart by people who are colour-blind as well, on white and on black (Okabe and Ito).
COLOURS = {
    "touchdown": "#0a84d6",
    "touchdown16": "#0a84d6",
    "tonic": "#d55e00",
    "grpcio": "#009e73",
    "cpp": "#cc79a7",
    "go": "#e0a000",
}
DASHED = ("touchdown16",)
DASHES = "5 4"
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 14px; font-weight: 600 }
  .small { font-size: 11px; fill: #57606a }
  .page { fill: #ffffff }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .one { stroke: #24292f; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .small { fill: #9da7b3 }
    .page { fill: #0d1117 }
    .grid { stroke: #30363d }
    .one { stroke: #e6edf3 }
  }
"""


class Picture:
    """Panels from top to bottom, one or two abreast."""

    def __init__(self, names):
        self.names = names
        self.parts = []
        self.y = 0

    def text(self, x, y, text, anchor="start", kind=""):
        kind = f' class="{kind}"' if kind else ""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{kind}>{escape(text)}</text>')

    def line(self, x1, y1, x2, y2, kind="grid"):
        self.parts.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def legend(self, keys):
        self.y += 22
        x = LEFT
        for key in keys:
            colour, middle = COLOURS[key], self.y - 4
            if key in DASHED:
                self.parts.append(
                    f'<path d="M{x - 4} {middle}h18" stroke="{colour}" stroke-width="3" stroke-dasharray="{DASHES}"/>'
                )
            else:
                self.parts.append(f'<rect x="{x}" y="{middle - 6}" width="12" height="12" fill="{colour}"/>')
            name = self.names[key]
            self.text(x + 17, self.y, name)
            x += 17 + 7 * len(name) + 18
        self.y += 6

    def ratios(self, title, cases, keys, ratio):
        """For each case a bar for each rival, above 1 where touchdown is the better."""
        values = {(case, key): ratio(case, key) for case, _ in cases for key in keys}
        logs = [log2(it) for it in values.values() if it]
        if not logs:
            return
        low, high = min(-1, floor(min(logs))), max(1, ceil(max(logs)))
        top, height = self.y + 40, 30 * (high - low) + 20
        width = WIDTH - LEFT - RIGHT

        def position(value):
            return top + height * (high - value) / (high - low)

        self.text(LEFT, self.y + 24, title, kind="title")
        for step in range(low, high + 1):
            self.line(LEFT, position(step), WIDTH - RIGHT, position(step), "one" if step == 0 else "grid")
            label = str(2**step) if step >= 0 else f"1/{2**-step}"
            self.text(LEFT - 8, position(step) + 4, label, "end", "small")
        slot = width / len(cases)
        bar = min(26, slot * 0.76 / len(keys))
        for column, (case, label) in enumerate(cases):
            middle = LEFT + slot * (column + 0.5)
            for lines, part in enumerate(label.split("\n")):
                self.text(middle, top + height + 16 + 13 * lines, part, "middle", "small")
            for place, key in enumerate(keys):
                value = values[case, key]
                if not value:
                    continue
                x = middle + bar * (place - len(keys) / 2)
                end = position(log2(value))
                y, size = min(end, position(0)), abs(end - position(0))
                self.parts.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{bar - 2:.1f}" height="{max(size, 1):.1f}"'
                    f' fill="{COLOURS[key]}"><title>{escape(self.names[key])}: {value:.2f}</title></rect>'
                )
                below = value < 1
                if bar >= 19:
                    self.text(x + bar / 2 - 1, end + (12 if below else -4), short(value), "middle", "small")
        self.y = top + height + 36

    def columns(self, title, cases, keys, figure):
        """For each case a bar for each server."""
        values = {(case, key): figure(case, key) for case, _ in cases for key in keys}
        highest = max((it for it in values.values() if it), default=0)
        if not highest:
            return
        top, height = self.y + 40, 150
        steps = scale(highest)

        def position(value):
            return top + height * (1 - value / steps[-1])

        self.text(LEFT, self.y + 24, title, kind="title")
        for step in steps:
            self.line(LEFT, position(step), WIDTH - RIGHT, position(step))
            self.text(LEFT - 8, position(step) + 4, amount(step), "end", "small")
        slot = (WIDTH - LEFT - RIGHT) / len(cases)
        bar = min(64, slot * 0.8 / len(keys))
        for column, (case, label) in enumerate(cases):
            middle = LEFT + slot * (column + 0.5)
            self.text(middle, top + height + 16, label.replace("\n", ", "), "middle", "small")
            for place, key in enumerate(keys):
                value = values[case, key]
                if not value:
                    continue
                x = middle + bar * (place - len(keys) / 2)
                self.parts.append(
                    f'<rect x="{x:.1f}" y="{position(value):.1f}" width="{bar - 4:.1f}"'
                    f' height="{position(0) - position(value):.1f}" fill="{COLOURS[key]}"/>'
                )
                self.text(x + bar / 2 - 2, position(value) - 4, f"{value:,.0f}", "middle", "small")
        self.y = top + height + 26

    def curves(self, panels):
        """Two panels abreast: each a title, a label below, x values and series of y values by key."""
        top, height = self.y + 40, 170
        gap = 30
        width = (WIDTH - LEFT - RIGHT - gap - LEFT) / 2
        for side, (title, below, xs, series, logarithmic) in enumerate(panels):
            left = LEFT + side * (width + gap + LEFT)
            values = [y for ys in series.values() for y in ys if y]
            if not values:
                continue
            self.text(left, self.y + 24, title, kind="title")
            steps = decades(min(values), max(values)) if logarithmic else scale(max(values))
            measure = log10 if logarithmic else float
            low, high = measure(steps[0]), measure(steps[-1])

            def position(y, measure=measure, low=low, high=high):
                return top + height * (high - measure(y)) / (high - low)

            def across(place, left=left, count=len(xs)):
                return left + width * (place + 0.5) / count

            for step in steps:
                self.line(left, position(step), left + width, position(step))
                self.text(left - 8, position(step) + 4, amount(step), "end", "small")
            for place, x in enumerate(xs):
                self.text(across(place), top + height + 16, f"{x:,}", "middle", "small")
            self.text(left + width / 2, top + height + 32, below, "middle", "small")
            for key, ys in series.items():
                points = [(across(place), position(y)) for place, y in enumerate(ys) if y]
                path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
                dashes = f' stroke-dasharray="{DASHES}"' if key in DASHED else ""
                weight = 3 if key.startswith("touchdown") else 2
                self.parts.append(
                    f'<polyline points="{path}" fill="none" stroke="{COLOURS[key]}"'
                    f' stroke-width="{weight}" stroke-linejoin="round"{dashes}/>'
                )
                for x, y in points:
                    self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{COLOURS[key]}"/>')
        self.y = top + height + 44

    def note(self, text):
        self.y += 18
        self.text(LEFT, self.y, text, kind="small")

    def svg(self):
        height = self.y + 14
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:.0f}"'
                f' viewBox="0 0 {WIDTH} {height:.0f}" role="img">',
                "<title>touchdown against tonic, grpcio, gRPC C++ and grpc-go</title>",
                f"<style>{STYLE}</style>",
                f'<rect class="page" width="{WIDTH}" height="{height:.0f}"/>',
                *self.parts,
                "</svg>",
                "",
            ]
        )


def scale(highest):
    """Round steps from 0 to a little above the highest value."""
    rough = highest / 4
    power = 10 ** floor(log10(rough))
    step = next(it * power for it in (1, 2, 2.5, 5, 10) if it * power >= rough)
    return [step * it for it in range(ceil(highest / step) + 1)]


def decades(lowest, highest):
    low, high = floor(log10(lowest)), ceil(log10(highest))
    return [10**it for it in range(low, max(high, low + 1) + 1)]


def amount(value):
    """A number on an axis."""
    if value >= 1_000_000:
        return f"{value / 1e6:g} M"
    return f"{value / 1e3:g} k" if value >= 10_000 else f"{value:g}"


def short(value):
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}".lstrip("0")
