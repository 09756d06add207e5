"""What a program's bytes are: C and C++ by the linker's map, Rust by the names of its symbols."""

import os
import re
import subprocess
from collections import Counter
from pathlib import Path

# Where a section of the map is: ` .text.name  0xADDRESS  0xSIZE  FILE`, on one line or two.
PIECE = re.compile(r"^ (\.\S+|COMMON)\s+0x([0-9a-f]{16})\s+0x([0-9a-f]+) (.+)$")
MEMBER = re.compile(r"\(([^()]+?)(?:\.cc|\.c|\.cpp|\.S|\.asm)?\.o\)$")
# They take no room in the file.
EMPTY = (".bss", ".tbss", "COMMON")
TABLES = (".eh_frame", ".gcc_except_table")
RUST = re.compile(r"17h[0-9a-f]{16}E")


def contributors(program, link_map, sources):
    """Bytes by component, the largest first; what is left is relocations, the symbols of shared libraries and the like."""
    components = components_of(sources)
    found = Counter()
    rust = 0
    for section, size, file in pieces(link_map):
        if section.startswith(EMPTY):
            continue
        if section.startswith(TABLES):
            found["unwinding tables (panics and C++ exceptions)"] += size
        elif member := MEMBER.search(file):
            name = component(section, member.group(1), components, file)
            if name is None:
                rust += size
            else:
                found[name] += size
        elif "/rustc" in file or file.endswith(".o"):
            rust += size
    by_crate = crates(program)
    named = sum(by_crate.values())
    found.update(by_crate)
    found["Rust: constants and strings"] += max(0, rust - named)
    stripped = program.with_suffix(".stripped")
    subprocess.run(["strip", "-o", stripped, program], check=True)
    size = stripped.stat().st_size
    found["relocations, dynamic symbols, the loader's tables"] += max(0, size - sum(found.values()))
    return size, found.most_common()


def pieces(link_map):
    """The sections that the linker took, with their sizes and where they are from."""
    text = link_map.read_text(errors="replace")
    text = text[text.index("Linker script and memory map") :]
    # Long names have a line for themselves.
    text = re.sub(r"^( \.\S+)\n\s+(0x)", r"\1 \2", text, flags=re.M)
    for line in text.splitlines():
        if (found := PIECE.match(line)) and int(found.group(2), 16):
            yield found.group(1), int(found.group(3), 16), found.group(4)


def components_of(sources):
    """The folder of each source of C-core and what comes with it, by name: those of one name are told apart later."""
    folders = {}
    for folder, _, files in os.walk(sources):
        for file in files:
            stem, ending = os.path.splitext(file)
            if ending in (".cc", ".c", ".cpp"):
                folders.setdefault(stem, []).append(os.path.relpath(folder, sources))
    return folders


def component(section, member, components, archive):
    """What a file of an archive belongs to; None if it is Rust's."""
    if "libstdc++" in archive or "libsupc++" in archive:
        return "C++ library"
    if "libgcc" in archive or "/libc" in archive:
        return "compiler's and C library"
    if member in ("shim", "threads") or member.endswith(("-shim", "-threads")):
        return "touchdown (C++)"
    folders = components.get(member)
    if not folders:
        return None if ".rcgu" in member or "rust" in archive else "other C code"
    if "N4absl" in section:
        return "Abseil"
    names = [name_of(it) for it in folders]
    return next((it for it in names if it != "Abseil"), names[0])


def name_of(folder):
    parts = Path(folder).parts
    if parts[0] == "third_party":
        return {"abseil-cpp": "Abseil", "cares": "c-ares"}.get(parts[1], parts[1])
    if parts[:2] == ("src", "core"):
        return "C-core: " + "/".join(parts[2:5] if parts[2] == "ext" else parts[2:4])
    return "/".join(parts[:3])


def crates(program):
    """The code and data of each crate, by its symbols. What is generic counts for the crate that defines it."""
    lines = run("nm", "--print-size", "--defined-only", program).splitlines()
    fields = [line.split() for line in lines]
    symbols = [it for it in fields if len(it) == 4 and it[2] not in "bB"]
    symbols = [it for it in symbols if RUST.search(it[3]) or it[3].startswith("_R")]
    names = subprocess.run(
        ["c++filt"], input="\n".join(it[3] for it in symbols), capture_output=True, text=True, check=True
    ).stdout.splitlines()
    found = Counter()
    for (_, size, _, _), name in zip(symbols, names):
        crate = re.match(r"[<&*\s]*(?:(?:mut|const|dyn) )*[<&*\[(]*([a-z_][a-z_0-9]*)", name)
        crate = crate.group(1) if crate else "?"
        if crate in ("std", "core", "alloc", "gimli", "addr2line", "hashbrown", "miniz_oxide", "rustc_demangle"):
            crate = "standard library"
        found[f"Rust: {crate}"] += int(size, 16)
    return found


def run(*command):
    return subprocess.run([str(it) for it in command], capture_output=True, text=True, check=True).stdout
