//! Names for addresses of instructions, from the symbol tables of the program and its libraries.
//!
//! It takes no lock of the loader, which a stuck thread may hold: it reads the kernel's list of what is
//! mapped, and the files. Of these it reads the tables of symbols, in pieces. Lines of source would take the
//! debugger's tables, and more time and memory than a program has that is about to exit; `addr2line` finds
//! them from what is printed, with the unstripped program on the machine that built it.

use std::ffi::{c_char, c_int, CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr::null_mut;
use std::time::Instant;

/// What turns the addresses into files and lines.
pub(crate) const HOW_TO_RESOLVE: &str =
    "files and lines: addr2line -Cfipe UNSTRIPPED_MODULE 0xOFFSET";

/// The longest name that is printed, in bytes. Those of generic code can be kilobytes long.
const LONGEST_NAME: usize = 160;

/// Says of each address where it is: `function (module+0xoffset)`, or as much of that as is known
/// by `deadline`.
pub(crate) fn describe(addresses: &[usize], deadline: Instant) -> Vec<String> {
    let text = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mappings: Vec<Mapping<'_>> = text.lines().filter_map(Mapping::parse).collect();
    let mut lines: Vec<String> = addresses.iter().map(|it| format!("{it:#x}")).collect();
    let located = addresses
        .iter()
        .enumerate()
        .filter_map(|(index, &address)| {
            let (path, base) = locate(&mappings, address)?;
            Some((index, path, base))
        });
    let mut left: Vec<(usize, &str, usize)> = located.collect();
    // Module by module, so that each is read once.
    while let Some(&(_, path, _)) = left.first() {
        let places;
        (places, left) = left.into_iter().partition::<Vec<_>, _>(|it| it.1 == path);
        let elf = Elf::open(path);
        let is_fixed = elf.as_ref().is_ok_and(|it| it.is_fixed);
        let offsets: Vec<u64> = places
            .iter()
            .map(|&(index, _, base)| (addresses[index] - if is_fixed { 0 } else { base }) as u64)
            .collect();
        let names = elf.and_then(|it| it.names(&offsets, deadline));
        // Without names there are still the offsets.
        let names = names.unwrap_or_else(|_| vec![None; offsets.len()]);
        let module = module_name(path);
        for (((index, ..), offset), name) in places.into_iter().zip(offsets).zip(names) {
            lines[index] = match name {
                Some(name) => format!("{} ({module}+{offset:#x})", shortened(&demangled(&name))),
                None => format!("{module}+{offset:#x}"),
            };
        }
    }
    lines
}

/// The file's name alone. The kernel marks files that have been replaced since.
fn module_name(path: &str) -> &str {
    let path = path.strip_suffix(DELETED).unwrap_or(path);
    path.rsplit('/').next().unwrap_or(path)
}

const DELETED: &str = " (deleted)";

/// A line of /proc/self/maps.
struct Mapping<'a> {
    start: usize,
    end: usize,
    offset: usize,
    path: &'a str,
}

impl<'a> Mapping<'a> {
    /// Of `7f0000000000-7f0000001000 r-xp 00000000 08:01 1234    /path of the file`.
    fn parse(line: &'a str) -> Option<Mapping<'a>> {
        let mut rest = line;
        let mut field = || {
            let (field, after) = rest.split_once(' ')?;
            rest = after.trim_start();
            Some(field)
        };
        let (start, end) = field()?.split_once('-')?;
        let (_rights, offset, _device, _inode) = (field()?, field()?, field()?, field()?);
        let number = |hex| usize::from_str_radix(hex, 16).ok();
        Some(Mapping {
            start: number(start)?,
            end: number(end)?,
            offset: number(offset)?,
            path: rest,
        })
    }
}

/// The module that an address is in, and where that begins in memory.
fn locate<'a>(mappings: &[Mapping<'a>], address: usize) -> Option<(&'a str, usize)> {
    let at = mappings
        .iter()
        .position(|it| (it.start..it.end).contains(&address))?;
    let path = mappings[at].path;
    let first = mappings[..=at]
        .iter()
        .rev()
        .find(|it| it.path == path && it.offset == 0)?;
    (!path.is_empty()).then_some((path, first.start))
}

/// An ELF file of 64 bits, least significant byte first.
struct Elf {
    file: File,
    /// Whether it is always loaded at the addresses that it was linked for.
    is_fixed: bool,
    sections: Vec<Section>,
}

struct Section {
    kind: u32,
    link: usize,
    offset: u64,
    size: u64,
}

// From elf(5).
const HEADER: usize = 64;
const ET_EXEC: u16 = 2;
const SECTION: usize = 64;
const SHT_SYMTAB: u32 = 2;
const SHT_DYNSYM: u32 = 11;
const SYMBOL: usize = 24;
const STT_FUNC: u8 = 2;
const STT_GNU_IFUNC: u8 = 10;

/// How much of a table is read at a time.
const PIECE: usize = 4096 * SYMBOL;

/// The longest name that is read, in bytes. One that is cut cannot be demangled, and is printed as it is.
const LONGEST_MANGLED: usize = 4096;

impl Elf {
    fn open(path: &str) -> io::Result<Elf> {
        // The program's own file can be had even if it has been replaced.
        let program = fs::read_link("/proc/self/exe");
        let is_program = program.is_ok_and(|it| it.as_os_str() == path);
        let file = File::open(if is_program { "/proc/self/exe" } else { path })?;
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0)?;
        if header[..6] != *b"\x7fELF\x02\x01" || usize::from(u16_at(&header, 58)) != SECTION {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut table = vec![0; SECTION * usize::from(u16_at(&header, 60))];
        file.read_exact_at(&mut table, u64_at(&header, 40))?;
        let section = |it: &[u8]| Section {
            kind: u32_at(it, 4),
            link: u32_at(it, 40) as usize,
            offset: u64_at(it, 24),
            size: u64_at(it, 32),
        };
        Ok(Elf {
            file,
            is_fixed: u16_at(&header, 16) == ET_EXEC,
            sections: table.chunks_exact(SECTION).map(section).collect(),
        })
    }

    /// The names of the functions that these offsets are in, as far as they are found in time.
    fn names(&self, offsets: &[u64], deadline: Instant) -> io::Result<Vec<Option<String>>> {
        let mut names = vec![None; offsets.len()];
        // What a stripped file still has are the functions that it offers to others.
        let table = |kind| self.sections.iter().find(|it| it.kind == kind);
        let Some(symbols) = table(SHT_SYMTAB).or_else(|| table(SHT_DYNSYM)) else {
            return Ok(names);
        };
        let Some(strings) = self.sections.get(symbols.link) else {
            return Ok(names);
        };
        // Their indices, the least offset first.
        let mut order = Vec::with_capacity(offsets.len());
        for (index, offset) in offsets.iter().enumerate() {
            order.insert(
                order.partition_point(|&it: &usize| offsets[it] < *offset),
                index,
            );
        }
        let mut piece = vec![0; PIECE];
        let mut read = 0;
        while read < symbols.size && Instant::now() < deadline {
            let length = (symbols.size - read).min(PIECE as u64) as usize;
            let piece = &mut piece[..length];
            self.file
                .read_exact_at(piece, symbols.offset.saturating_add(read))?;
            read += length as u64;
            for symbol in piece.chunks_exact(SYMBOL) {
                let (start, size) = (u64_at(symbol, 8), u64_at(symbol, 16));
                if !matches!(symbol[4] & 0xf, STT_FUNC | STT_GNU_IFUNC) || size == 0 {
                    continue;
                }
                let first = order.partition_point(|&it| offsets[it] < start);
                let inside = order[first..].iter();
                for &index in inside.take_while(|&&it| offsets[it] - start < size) {
                    if names[index].is_none() {
                        names[index] = self.string(strings, u32_at(symbol, 0));
                    }
                }
            }
        }
        Ok(names)
    }

    fn string(&self, strings: &Section, at: u32) -> Option<String> {
        let at = u64::from(at);
        let length = strings.size.checked_sub(at)?.min(LONGEST_MANGLED as u64);
        let mut bytes = vec![0; length as usize];
        self.file
            .read_exact_at(&mut bytes, strings.offset.saturating_add(at))
            .ok()?;
        let name = bytes.split(|&it| it == 0).next()?;
        (!name.is_empty()).then(|| String::from_utf8_lossy(name).into_owned())
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..][..4].try_into().map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..][..8].try_into().map_or(0, u64::from_le_bytes)
}

fn demangled(name: &str) -> String {
    if let Ok(name) = rustc_demangle::try_demangle(name) {
        return format!("{name:#}");
    }
    demangled_cpp(name).unwrap_or_else(|| name.to_owned())
}

fn demangled_cpp(name: &str) -> Option<String> {
    unsafe extern "C" {
        // Of the C++ library, which C-core is linked with.
        fn __cxa_demangle(
            name: *const c_char,
            buffer: *mut c_char,
            length: *mut usize,
            status: *mut c_int,
        ) -> *mut c_char;
    }
    let name = CString::new(name).ok()?;
    // SAFETY: a string that ends with a zero, and null where that is allowed.
    let text = unsafe { __cxa_demangle(name.as_ptr(), null_mut(), null_mut(), null_mut()) };
    if text.is_null() {
        return None;
    }
    // SAFETY: ends with a zero, came from `malloc`, and is ours.
    unsafe {
        let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
        libc::free(text.cast());
        Some(copy)
    }
}

fn shortened(name: &str) -> String {
    let mut end = name.len().min(LONGEST_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    match end == name.len() {
        true => name.to_owned(),
        false => format!("{}...", &name[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_may_have_a_path_with_spaces_or_none() {
        let line = "7f00-7fff r-xp 00001000 08:01 12    /opt/a b/pump (deleted)";
        let mapping = Mapping::parse(line).unwrap();
        assert_eq!(
            (mapping.start, mapping.end, mapping.offset),
            (0x7f00, 0x7fff, 0x1000)
        );
        assert_eq!(module_name(mapping.path), "pump");
        assert_eq!(
            Mapping::parse("7f00-7fff rw-p 00000000 00:00 0 ")
                .unwrap()
                .path,
            ""
        );
        assert!(Mapping::parse("nonsense").is_none());
    }

    #[test]
    fn an_address_is_in_the_module_whose_beginning_is_before_it() {
        let text = "1000-2000 r--p 00000000 08:01 1 /a\n\
                    2000-3000 r-xp 00001000 08:01 1 /a\n\
                    5000-6000 r--p 00000000 08:01 1 /a\n\
                    6000-7000 r-xp 00001000 08:01 1 /a\n\
                    8000-9000 rwxp 00000000 00:00 0 \n";
        let mappings: Vec<_> = text.lines().filter_map(Mapping::parse).collect();
        assert_eq!(locate(&mappings, 0x2100), Some(("/a", 0x1000)));
        assert_eq!(locate(&mappings, 0x6100), Some(("/a", 0x5000)));
        assert_eq!(locate(&mappings, 0x8100), None);
        assert_eq!(locate(&mappings, 0x4000), None);
    }

    #[test]
    fn names_are_those_of_the_source() {
        assert_eq!(demangled("_ZN4pump3run17h0123456789abcdefE"), "pump::run");
        assert_eq!(demangled("_RNvCs1234_4pump3run"), "pump::run");
        assert_eq!(demangled("_ZN4pump3runEi"), "pump::run(int)");
        assert_eq!(demangled("read"), "read");
        assert_eq!(
            shortened(&"ä".repeat(100)),
            format!("{}...", "ä".repeat(80))
        );
    }

    // Nobody asks on 32-bit machines: see stack.rs.
    #[cfg(target_pointer_width = "64")]
    #[test]
    fn the_programs_own_functions_and_those_of_its_libraries_have_names() {
        let ours = describe as *const () as usize;
        let theirs = libc::malloc as *const () as usize;
        let in_time = Instant::now() + std::time::Duration::from_secs(60);
        let lines = describe(&[ours + 1, 1, theirs + 1], in_time);
        assert!(
            lines[0].starts_with("touchdown::os::symbols::describe (touchdown-"),
            "{lines:?}"
        );
        assert_eq!(lines[1], "0x1");
        assert!(lines[2].contains("malloc ("), "{lines:?}");
    }

    #[test]
    fn without_time_there_are_offsets() {
        let here = describe as *const () as usize;
        let lines = describe(&[here], Instant::now());
        assert!(lines[0].starts_with("touchdown-"), "{lines:?}");
        assert!(lines[0].contains("+0x"), "{lines:?}");
    }

    #[test]
    fn what_is_no_elf_file_has_no_names() {
        assert!(Elf::open("/proc/self/maps").is_err());
        assert!(Elf::open("/nowhere").is_err());
    }
}
