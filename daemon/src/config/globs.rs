//! File names with wildcards, as Go's filepath.Glob has them: `*`, `?` and `[a-z]` in any part of
//! a path, none of them over a `/`.

use std::io;
use std::path::{Component, Path, PathBuf};

/// The files that `pattern` names, sorted: itself when it has no wildcard, whether it is there or
/// not; else those that are there.
///
/// # Errors
/// `InvalidInput` for a bracket that is not closed; those of reading a folder, save that it is
/// not there or not a folder.
pub(super) fn matching(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let has_wildcard = |part: &str| part.contains(['*', '?', '[']);
    if !has_wildcard(&pattern.to_string_lossy()) {
        return Ok(vec![pattern.to_owned()]);
    }
    let mut found = vec![PathBuf::new()];
    for part in pattern.components() {
        let text = part.as_os_str().to_string_lossy();
        if !matches!(part, Component::Normal(_)) || !has_wildcard(&text) {
            for path in &mut found {
                path.push(part);
            }
            continue;
        }
        let pattern: Vec<char> = text.chars().collect();
        fits(&pattern, &[]).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, "a bracket is not closed")
        })?;
        let mut next = Vec::new();
        for folder in found {
            let here = if folder.as_os_str().is_empty() {
                Path::new(".")
            } else {
                &folder
            };
            let Ok(entries) = std::fs::read_dir(here) else {
                continue;
            };
            for entry in entries {
                let name = entry?.file_name();
                let chars: Vec<char> = name.to_string_lossy().chars().collect();
                if fits(&pattern, &chars) == Some(true) {
                    next.push(folder.join(name));
                }
            }
        }
        found = next;
    }
    found.retain(|path| path.exists());
    found.sort();
    Ok(found)
}

/// Whether `name` fits the pattern; `None` for a pattern that is none.
fn fits(pattern: &[char], name: &[char]) -> Option<bool> {
    // Where to go on after a `*` that took one character more.
    let mut retry: Option<(usize, usize)> = None;
    let (mut p, mut n) = (0, 0);
    // A pattern is wrong whether or not the name gets as far as the mistake.
    let mut at = 0;
    while at < pattern.len() {
        at += if pattern[at] == '[' {
            set(&pattern[at..], 'x')?.1
        } else {
            1
        };
    }
    loop {
        let step = match (pattern.get(p), name.get(n)) {
            (None, None) => return Some(true),
            (Some('*'), _) => {
                retry = Some((p + 1, n));
                p += 1;
                continue;
            }
            (Some('?'), Some(_)) => Some(1),
            (Some('['), Some(c)) => {
                let (holds, length) = set(&pattern[p..], *c)?;
                holds.then_some(length)
            }
            (Some(a), Some(b)) => (a == b).then_some(1),
            _ => None,
        };
        match (step, retry) {
            (Some(length), _) => {
                p += length;
                n += 1;
            }
            (None, Some((behind, from))) if from < name.len() => {
                retry = Some((behind, from + 1));
                (p, n) = (behind, from + 1);
            }
            _ => return Some(false),
        }
    }
}

/// Whether the set at the beginning of `pattern` has `c`, and how long the set is.
fn set(pattern: &[char], c: char) -> Option<(bool, usize)> {
    let mut at = 1;
    let negated = pattern.get(at) == Some(&'^');
    at += usize::from(negated);
    let first = at;
    let mut holds = false;
    loop {
        let low = *pattern.get(at)?;
        if low == ']' && at > first {
            return Some((holds != negated, at + 1));
        }
        at += 1;
        let high = match (pattern.get(at), pattern.get(at + 1)) {
            (Some('-'), Some(high)) if *high != ']' => {
                at += 2;
                *high
            }
            _ => low,
        };
        holds |= (low..=high).contains(&c);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_go() {
        for (pattern, name, expected) in [
            ("*.toml", "a.toml", Some(true)),
            ("*.toml", "a.toml.bak", Some(false)),
            ("a*b*c", "aXbYbZc", Some(true)),
            ("[0-9]?-*", "10-x", Some(true)),
            ("[^0-9]*", "1x", Some(false)),
            ("[", "x", None),
            ("a[b", "x", None),
            ("*", "", Some(true)),
        ] {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            assert_eq!(
                fits(&chars(pattern), &chars(name)),
                expected,
                "{pattern} {name}"
            );
        }
    }

    #[test]
    fn any_part_of_a_path_may_have_wildcards() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b/2.toml", "a/1.toml", "a/x"] {
            let file = dir.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        let expected = [dir.path().join("a/1.toml"), dir.path().join("b/2.toml")];
        assert_eq!(matching(&dir.path().join("*/*.toml")).unwrap(), expected);
        let nothing = matching(&dir.path().join("no/*.toml")).unwrap();
        assert_eq!(nothing, Vec::<PathBuf>::new());
        assert_eq!(
            matching(&dir.path().join("no")).unwrap(),
            [dir.path().join("no")]
        );
    }
}
