//! The files that a server can tell of.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;

use super::declared::{self, Kind};
use super::error::DescriptorError;
use super::wire::{fields, text, Malformed, Value};

/// The number of `file` in `FileDescriptorSet`.
const FILE: u32 = 1;

/// The files that come with the language. Programs are made with different versions of them, any of which will do.
const WELL_KNOWN: &[u8] = b"google/protobuf/";

/// Descriptors, encoded as they were given, and where each file is in them.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    sets: Vec<Cow<'static, [u8]>>,
    files: Vec<File>,
    extensions: Vec<Extension>,
}

#[derive(Debug)]
struct File {
    set: usize,
    place: Range<usize>,
    /// Indices of files.
    imports: Vec<usize>,
}

#[derive(Debug)]
struct Extension {
    extendee: Box<[u8]>,
    number: i32,
    /// The index of the file that declares it.
    file: usize,
}

/// Which files a caller has.
#[derive(Debug, Default)]
pub(super) struct Sent(Vec<bool>);

impl Catalog {
    /// Of these sets. Then `own` is added: descriptors of what is served without the program's doing. What the program
    /// describes itself is left out of it.
    pub(super) fn new(
        mut sets: Vec<Cow<'static, [u8]>>,
        own: &'static [u8],
    ) -> Result<Catalog, DescriptorError> {
        let given = sets.len();
        sets.push(Cow::Borrowed(own));
        let mut catalog = Catalog {
            sets,
            ..Catalog::default()
        };
        let mut indices = HashMap::new();
        for set in 0..=given {
            catalog.add(set, set == given, &mut indices)?;
        }
        catalog.resolve(&indices)?;
        Ok(catalog)
    }

    fn add(
        &mut self,
        set: usize,
        is_own: bool,
        indices: &mut HashMap<Vec<u8>, usize>,
    ) -> Result<(), DescriptorError> {
        for (i, place) in self.places(set)?.into_iter().enumerate() {
            let file = &self.sets[set][place.clone()];
            let name = text(file, declared::NAME);
            declared::check(file).map_err(|what| DescriptorError::Malformed {
                set: set + 1,
                file: match name {
                    [] => format!("file {}", i + 1),
                    name => lossy(name),
                },
                what,
            })?;
            if let Some(other) = indices.get(name) {
                let will_do = is_own || name.starts_with(WELL_KNOWN) || self.file(*other) == file;
                if !will_do {
                    return Err(DescriptorError::Ambiguous { file: lossy(name) });
                }
                continue;
            }
            if is_own && declared::services(file).any(|it| self.declaring(&it).is_some()) {
                continue;
            }
            let index = self.files.len();
            indices.insert(name.to_vec(), index);
            declared::extensions(file, &mut |extendee, number| {
                self.extensions.push(Extension {
                    extendee: extendee.into(),
                    number,
                    file: index,
                });
            });
            self.files.push(File {
                set,
                place,
                imports: Vec::new(),
            });
        }
        Ok(())
    }

    /// Where the files of a set are in it.
    fn places(&self, set: usize) -> Result<Vec<Range<usize>>, DescriptorError> {
        let bytes = &*self.sets[set];
        let no_set = || DescriptorError::NoSet { set: set + 1 };
        let mut places = Vec::new();
        let mut fields = fields(bytes);
        while let Some(field) = fields.next() {
            if let (FILE, Value::Bytes(file)) = field.map_err(|Malformed| no_set())? {
                let end = bytes.len() - fields.left();
                places.push(end - file.len()..end);
            }
        }
        match places.is_empty() {
            true => Err(no_set()),
            false => Ok(places),
        }
    }

    fn resolve(&mut self, indices: &HashMap<Vec<u8>, usize>) -> Result<(), DescriptorError> {
        for i in 0..self.files.len() {
            let file = self.file(i);
            let find = |import: &[u8]| {
                let found = indices.get(import).copied();
                found.ok_or_else(|| DescriptorError::MissingImport {
                    file: lossy(text(file, declared::NAME)),
                    import: lossy(import),
                })
            };
            let imports = declared::imports(file).map(find);
            self.files[i].imports = imports.collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    fn file(&self, index: usize) -> &[u8] {
        let File { set, place, .. } = &self.files[index];
        &self.sets[*set][place.clone()]
    }

    /// The index of the file of this name.
    pub(super) fn named(&self, name: &str) -> Option<usize> {
        (0..self.files.len()).find(|it| text(self.file(*it), declared::NAME) == name.as_bytes())
    }

    /// The index of the file that declares this symbol.
    pub(super) fn declaring(&self, symbol: &str) -> Option<usize> {
        (0..self.files.len()).find(|it| declared::find(self.file(*it), symbol).is_some())
    }

    /// The index of the file that declares the extension of this message with this number.
    pub(super) fn extending(&self, message: &str, number: i32) -> Option<usize> {
        let mut extensions = self.extensions_of(message);
        Some(extensions.find(|it| it.number == number)?.file)
    }

    /// The numbers of all extensions of this message, if there is such a message.
    pub(super) fn extension_numbers(&self, message: &str) -> Option<BTreeSet<i32>> {
        let numbers: BTreeSet<i32> = self.extensions_of(message).map(|it| it.number).collect();
        let is_message = |it: usize| declared::find(self.file(it), message) == Some(Kind::Message);
        let is_known = !numbers.is_empty() || (0..self.files.len()).any(is_message);
        is_known.then_some(numbers)
    }

    fn extensions_of<'a>(&'a self, message: &'a str) -> impl Iterator<Item = &'a Extension> {
        let extensions = self.extensions.iter();
        extensions.filter(move |it| *it.extendee == *message.as_bytes())
    }

    /// This file, and what it imports, from near to far, without what the caller has already. The file itself was asked
    /// for, and comes in any case.
    pub(super) fn with_imports(&self, index: usize, sent: &mut Sent) -> Vec<&[u8]> {
        sent.0.resize(self.files.len(), false);
        let mut seen = vec![false; self.files.len()];
        seen[index] = true;
        let mut queue = VecDeque::from([index]);
        let mut files = Vec::new();
        while let Some(next) = queue.pop_front() {
            if !std::mem::replace(&mut sent.0[next], true) || next == index {
                files.push(self.file(next));
            }
            for import in &self.files[next].imports {
                if !std::mem::replace(&mut seen[*import], true) {
                    queue.push_back(*import);
                }
            }
        }
        files
    }
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::super::own::FILE_DESCRIPTOR_SET as OWN;
    use super::*;

    /// A set of a file for each name, which imports these.
    fn set(files: &[(&str, &[&str])]) -> Cow<'static, [u8]> {
        let mut set = Vec::new();
        for (name, imports) in files {
            let mut file = Vec::new();
            let texts = imports.iter().map(|it| (0x1a, it));
            for (tag, text) in [(0x0a, name)].into_iter().chain(texts) {
                file.extend([tag, text.len() as u8]);
                file.extend_from_slice(text.as_bytes());
            }
            set.extend([0x0a, file.len() as u8]);
            set.extend(file);
        }
        set.into()
    }

    fn names(files: Vec<&[u8]>) -> Vec<String> {
        let name = |it: &[u8]| lossy(text(it, declared::NAME));
        files.into_iter().map(name).collect()
    }

    #[test]
    fn files_that_import_each_other_are_sent_once() {
        let files: &[(&str, &[&str])] = &[("a", &["b", "a"]), ("b", &["c", "a"]), ("c", &["a"])];
        let catalog = Catalog::new(vec![set(files)], OWN).unwrap();
        let mut sent = Sent::default();
        let b = catalog.named("b").unwrap();
        assert_eq!(names(catalog.with_imports(b, &mut sent)), ["b", "c", "a"]);
        assert_eq!(names(catalog.with_imports(b, &mut sent)), ["b"]);
    }

    /// Each file of a chain of pairs imports both of the next pair: there are 2^40 ways to the end.
    #[test]
    fn many_ways_to_a_file_are_one() {
        let name = |i: usize, side: char| format!("{side}{i}");
        let all: Vec<_> = (0..=40)
            .flat_map(|i| [(i, 'l'), (i, 'r')])
            .map(|(i, side)| (name(i, side), [name(i + 1, 'l'), name(i + 1, 'r')]))
            .collect();
        let files: Vec<(&str, Vec<&str>)> = all
            .iter()
            .map(|(name, imports)| match &name[1..] {
                "40" => (&**name, Vec::new()),
                _ => (&**name, imports.iter().map(|it| &**it).collect()),
            })
            .collect();
        let files: Vec<(&str, &[&str])> = files.iter().map(|it| (it.0, &*it.1)).collect();
        let catalog = Catalog::new(vec![set(&files)], OWN).unwrap();
        let first = catalog.named("l0").unwrap();
        let sent = names(catalog.with_imports(first, &mut Sent::default()));
        assert_eq!(sent.len(), 81);
    }

    proptest! {
        /// Whatever a file has become on its way.
        #[test]
        fn a_set_that_was_changed_is_refused_or_served(
            changes in vec((any::<Index>(), any::<u8>()), 1..4),
            cut in any::<Index>(),
            is_cut: bool,
        ) {
            let mut set = OWN.to_vec();
            for (place, byte) in changes {
                let length = set.len();
                set[place.index(length)] = byte;
            }
            if is_cut {
                set.truncate(cut.index(set.len()));
            }
            if let Ok(catalog) = Catalog::new(vec![set.into()], OWN) {
                for index in 0..catalog.files.len() {
                    let sent = catalog.with_imports(index, &mut Sent::default());
                    prop_assert!(!sent.is_empty());
                }
                for name in ["grpc.health.v1.HealthCheckResponse.SERVING", "a", ""] {
                    let file = catalog.declaring(name);
                    prop_assert!(file.is_none_or(|it| it < catalog.files.len()));
                    catalog.extension_numbers(name);
                }
            }
        }

        #[test]
        fn any_bytes_are_taken_without_a_panic(bytes in vec(any::<u8>(), 0..100)) {
            let set = Cow::Owned(bytes);
            if let Ok(catalog) = Catalog::new(vec![set], OWN) {
                prop_assert!(!catalog.files.is_empty());
            }
        }
    }
}
