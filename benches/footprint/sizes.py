"""What a program's bytes are: C and C++ by the linker's map, Rust by the names of its symbols."""

import os
import re
import subprocess
from collections import Counter
from pathlib import Path

# A section in the map of LLD, `ADDRESS ADDRESS SIZE ALIGN         FILE:(SECTION)`, which is what Rust 1.90 and later
# link with on x86-64, and in that of GNU ld, ` SECTION 0xADDRESS 0xSIZE FILE`, on one line or two.
LLD = re.compile(r"^ *(?P<at>[0-9a-f]+) +[0-9a-f]+ +(?P<size>[0-9a-f]+) +\d+ {9}(?! )(?P<file>.+):\((?P<section>.+)\)$")
GNU = re.compile(r"^ (?P<section>\.\S+|COMMON)\s+0x(?P<at>[0-9a-f]{8,16})\s+0x(?P<size>[0-9a-f]+) (?P<file>.+)$")
MEMBER = re.compile(r"\(([^()]+?)(?:\.cc|\.c|\.cpp|\.S|\.asm)?\.o\)$")
# They take no room in the stripped file.
EMPTY = (".rel.", ".bss", ".tbss", "COMMON", ".debug", ".comment", ".symtab", ".strtab", ".shstrtab")
TABLES = (".eh_frame", ".gcc_except_table", ".ARM.exidx", ".ARM.extab")
RUST = re.compile(r"17h[0-9a-f]{16}E")


def contributors(program, stripped, link_map, sources):
    """The size of a stripped program, and bytes by component, the largest first; what is left is relocations, the symbols of shared libraries and the like."""
    components = components_of(sources)
    found = Counter()
    rust = 0
    for section, size, file in pieces(link_map):
        if section.startswith(EMPTY):
            continue
        if section.startswith(TABLES):
            found["unwinding tables (panics and C++ exceptions)"] += size
        elif file == "<internal>" and section.startswith(".rodata"):
            found["strings, of all languages"] += size
        elif member := MEMBER.search(file):
            name = component(section, member.group(1), components, file)
            if name is None:
                rust += size
            else:
                found[name] += size
        elif file.endswith(".rcgu.o"):
            rust += size
    by_crate = crates(program)
    named = sum(by_crate.values())
    found.update(by_crate)
    found["Rust: constants and strings"] += max(0, rust - named)
    size = stripped.stat().st_size
    found["relocations, dynamic symbols, the loader's tables"] += max(0, size - sum(found.values()))
    return size, found.most_common()


def pieces(link_map):
    """The sections that the linker took, with their sizes and where they are from."""
    text = link_map.read_text(errors="replace")
    form, start = LLD, text.find("Linker script and memory map")
    if start >= 0:
        # Long names have a line for themselves.
        form, text = GNU, re.sub(r"^( \.\S+)\n\s+(0x)", r"\1 \2", text[start:], flags=re.M)
    for line in text.splitlines():
        # What is not loaded is at 0.
        if (found := form.match(line)) and int(found["at"], 16):
            yield found["section"], int(found["size"], 16), found["file"]


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
    if ".rcgu" in member:
        return None
    if "libstdc++" in archive or "libsupc++" in archive:
        return "C++ library"
    if re.search(r"/lib(gcc|gcc_eh|c|c_nonshared|m)\.a\(", archive):
        return "compiler's and C library"
    # What the crate `cc` compiles has a hash before its name.
    compiled_by_cc = re.fullmatch(r"[0-9a-f]{16}-(.*)", member)
    if "/libtouchdown" in archive and compiled_by_cc:
        return "touchdown (C++)"
    folders = components.get(compiled_by_cc.group(1) if compiled_by_cc else member)
    if not folders:
        # A static C++ library becomes a part of the first archive that wants it.
        return "other C code" if compiled_by_cc else "C++ library"
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
