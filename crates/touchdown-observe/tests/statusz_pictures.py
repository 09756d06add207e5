#!/usr/bin/env python3
"""Makes pictures of the page /statusz, for the eye: as a phone and a desk show it, light and dark.

    statusz_pictures.py PAGES PICTURES

PAGES is a folder of pages, which this writes:

    STATUSZ_PAGES=PAGES cargo test -p touchdown-observe --lib statusz -- --ignored

It needs Chromium. It fails if a page, or a box of it, is too narrow for what is in it.
"""

import html
import pathlib
import re
import subprocess
import sys
import tempfile

# Chromium's window is 500 pixels wide at the least, so a phone is a frame in a page of that width.
WIDTHS = {"phone": 390, "desk": 1280}
# 0 is dark, 1 is light.
SCHEMES = {"light": 1, "dark": 0}
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--force-device-scale-factor=2",
]


def chromium(url, *flags):
    """Runs it on one page, with a home of its own."""
    with tempfile.TemporaryDirectory() as home:
        command = ["chromium", *FLAGS, f"--user-data-dir={home}", *flags, url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        sys.exit(f"{command}: {done.stderr}")
    return done.stdout


def framed(page, width, height, scheme):
    """A page with another one in it, of that size. It says how large that one's content is, and how many boxes clip theirs."""
    source = html.escape(page, quote=True)
    return f"""<!doctype html><meta name=color-scheme content={scheme}>
<style>body{{margin:0;background:gray}}iframe{{border:0;display:block}}</style>
<iframe width={width} height={height} srcdoc="{source}"></iframe>
<script>onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  const it = page.documentElement;
  const inner = [...page.querySelectorAll("section, .tiles > div, header")];
  const clipped = inner.filter(it => it.scrollWidth > it.clientWidth).length;
  document.body.dataset.size = it.scrollWidth + " " + it.scrollHeight + " " + clipped;
}};</script>"""


def picture(page, width, scheme, to):
    """One picture. Says whether all of the page fits."""
    # A refresh would go to where there is nothing.
    page = re.sub(r"<meta http-equiv=refresh[^>]*>", "", page)
    setting = f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "page.html")
        file.write_text(framed(page, width, 100, scheme))
        dom = chromium(file.as_uri(), setting, "--dump-dom", "--window-size=1300,900")
        wide, high, clipped = map(int, re.search(r'data-size="(\d+) (\d+) (\d+)"', dom).groups())
        file.write_text(framed(page, width, high, scheme))
        window = f"--window-size={max(width, 500)},{high}"
        chromium(file.as_uri(), setting, f"--screenshot={to}", window)
    print(f"{to.name}: {wide}x{high}, {clipped} boxes are too narrow for what is in them")
    return wide <= width and clipped == 0


def main(pages, pictures):
    pictures.mkdir(parents=True, exist_ok=True)
    all_fit = True
    for page in sorted(pages.glob("*.html")):
        for where, width in WIDTHS.items():
            for scheme in SCHEMES:
                to = pictures / f"{page.stem}-{where}-{scheme}.png"
                all_fit &= picture(page.read_text(), width, scheme, to)
    if not all_fit:
        sys.exit("something does not fit")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*map(pathlib.Path, sys.argv[1:]))
