//! A configuration file with everything it imports, as one set of entries.
//!
//! As with containerd 2: what is read later goes before what was read earlier, key by key; lists
//! are joined; a stream processor or a proxy plugin is replaced whole; a file is read once,
//! however often it is named (`config dump` of containerd names the file itself). The order is
//! that of the imports, and then of theirs.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use toml::Value;

use super::entries::{self, Entry, KeyPath};
use super::problem::Problem;
use super::{globs, spelling};

/// More than this many bytes are no configuration file.
const FILE_LIMIT: u64 = 4 << 20;
/// More than this many files are a mistake.
const FILE_COUNT_LIMIT: usize = 1000;

/// Everything that was read, by key.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) entries: BTreeMap<KeyPath, Entry>,
    /// The files, in the order in which they were read.
    pub(super) files: Vec<PathBuf>,
}

/// Reads `file` and, if `with_imports`, what it imports.
///
/// # Errors
/// Everything for which a file is refused.
pub(super) fn read(file: &Path, with_imports: bool) -> Result<Sources, Vec<Problem>> {
    let mut sources = Sources::default();
    let mut problems = Vec::new();
    let mut seen = HashSet::new();
    let mut waiting = VecDeque::from([(file.to_owned(), None::<Entry>)]);
    while let Some((path, importer)) = waiting.pop_front() {
        let identity = path.canonicalize().unwrap_or_else(|_| path.clone());
        if !seen.insert(identity) {
            continue;
        }
        let at_importer = |text: String, remedy: &str| match &importer {
            Some(entry) => entry.error(text, remedy),
            None => Problem::error(&path, 1, text, remedy),
        };
        if sources.files.len() == FILE_COUNT_LIMIT {
            problems.push(at_importer("too many imports".into(), "import fewer files"));
            break;
        }
        let text = match text(&path) {
            Ok(text) => text,
            Err(error) => {
                let text = match &importer {
                    Some(_) => format!("imports: {}: {error}", path.display()),
                    None => error.to_string(),
                };
                problems.push(at_importer(text, "make it a file that can be read"));
                continue;
            }
        };
        sources.files.push(path.clone());
        let read = entries::read(&path, &text).and_then(|mut read| {
            // A drop-in that says nothing is of the version of the file that imports it.
            let silent = !read.iter().any(|entry| entry.path == ["version"]);
            let version = match &sources.entries.get(&vec!["version".to_owned()]) {
                Some(first) if silent => first.value.as_integer().unwrap_or(1).max(1),
                _ => spelling::version(&read).map_err(|problem| vec![problem])?,
            };
            let wrong: Vec<Problem> = read
                .iter_mut()
                .filter_map(|entry| spelling::normalise(version, entry).err())
                .collect();
            if wrong.is_empty() {
                Ok(read)
            } else {
                Err(wrong)
            }
        });
        match read {
            Err(wrong) => problems.extend(wrong),
            Ok(read) => {
                if with_imports {
                    imports(&path, &read, &mut waiting, &mut problems);
                }
                sources.merge(read);
            }
        }
    }
    if problems.is_empty() {
        Ok(sources)
    } else {
        Err(problems)
    }
}

/// The text of a file.
fn text(path: &Path) -> io::Result<String> {
    // Opening a FIFO or a device may wait for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(FILE_LIMIT + 1)
        .read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_LIMIT) {
        return Err(io::Error::other("longer than 4 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| io::Error::other("not UTF-8"))
}

/// Queues what a file imports. A relative path begins where the file is.
fn imports(
    file: &Path,
    read: &[Entry],
    waiting: &mut VecDeque<(PathBuf, Option<Entry>)>,
    problems: &mut Vec<Problem>,
) {
    let Some(entry) = read.iter().find(|entry| entry.path == ["imports"]) else {
        return;
    };
    let folder = file.parent().unwrap_or_else(|| Path::new("/"));
    // That it is a list of texts is for the table of keys to say.
    for pattern in entry.value.as_array().into_iter().flatten() {
        let Some(pattern) = pattern.as_str() else {
            continue;
        };
        match globs::matching(&folder.join(pattern)) {
            Ok(files) => {
                waiting.extend(files.into_iter().map(|file| (file, Some(entry.clone()))));
            }
            Err(error) => {
                let text = format!("imports: {pattern}: {error}");
                problems.push(entry.error(text, "name files, or a pattern with `*`"));
            }
        }
    }
}

impl Sources {
    fn merge(&mut self, read: Vec<Entry>) {
        let is_replaced = |table: &str| ["stream_processors", "proxy_plugins"].contains(&table);
        let replaced: HashSet<KeyPath> = read
            .iter()
            .filter(|entry| entry.path.len() > 2 && is_replaced(&entry.path[0]))
            .map(|entry| entry.path[..2].to_vec())
            .collect();
        self.entries
            .retain(|path, _| !replaced.iter().any(|start| path.starts_with(start)));
        for mut entry in read {
            let earlier = self.entries.get(&entry.path).map(|entry| &entry.value);
            if let (Some(Value::Array(earlier)), Value::Array(values)) = (earlier, &mut entry.value)
            {
                let mut all = earlier.clone();
                all.extend(values.drain(..).filter(|value| !earlier.contains(value)));
                *values = all;
            }
            if entry.path == ["version"] && earlier.is_some() {
                continue;
            }
            self.entries.insert(entry.path.clone(), entry);
        }
    }
}
