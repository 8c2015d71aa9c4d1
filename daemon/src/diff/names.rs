//! Names in archives: made relative to the target, and never leading out of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::fault::Fault;

/// What the names of whiteouts begin with.
pub(super) const WHITEOUT: &[u8] = b".wh.";
/// The name that makes a folder hide what lower layers have in it.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";
/// What the names of a former filesystem's own files begin with; they mean nothing here.
const META: &[u8] = b".wh..wh.";

/// What a name in a layer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning<'a> {
    /// Itself.
    Plain,
    /// This name of lower layers is not there any more.
    Whiteout(&'a OsStr),
    /// Nothing that lower layers have in its folder is there any more.
    Opaque,
    /// Nothing.
    Nothing,
}

/// The path of an entry below the target: no root, no `.`, no `..`. Empty for the target itself.
///
/// # Errors
/// Refuses what leads out of the target.
pub(super) fn clean(path: &[u8]) -> Result<PathBuf, Fault> {
    let mut clean: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                if clean.pop().is_none() {
                    return Err(Fault::layer(path, "leads out of the layer by \"..\""));
                }
            }
            part => clean.push(part),
        }
    }
    let bytes = clean.join(&b'/');
    Ok(PathBuf::from(OsStr::from_bytes(&bytes)))
}

/// Folder and name of a clean path.
pub(super) fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    Some((path.parent()?, path.file_name()?))
}

/// What the last part of a path means.
///
/// # Errors
/// Refuses a whiteout of `.`, `..` or nothing.
pub(super) fn meaning(name: &OsStr) -> Result<Meaning<'_>, Fault> {
    let bytes = name.as_bytes();
    if bytes == OPAQUE {
        return Ok(Meaning::Opaque);
    }
    let Some(hidden) = bytes.strip_prefix(WHITEOUT) else {
        return Ok(Meaning::Plain);
    };
    if bytes.starts_with(META) {
        return Ok(Meaning::Nothing);
    }
    match hidden {
        b"" | b"." | b".." => Err(Fault::layer(bytes, "invalid whiteout name")),
        hidden => Ok(Meaning::Whiteout(OsStr::from_bytes(hidden))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_stay_below_the_target() {
        for (name, wanted) in [
            ("a/b", "a/b"),
            ("./a//b/.", "a/b"),
            ("/etc/x", "etc/x"),
            ("a/../b", "b"),
            ("./", ""),
            ("a/..", ""),
        ] {
            assert_eq!(clean(name.as_bytes()).unwrap(), Path::new(wanted), "{name}");
        }
        for name in ["..", "../a", "/../a", "a/../../b", "a/b/../../../c"] {
            clean(name.as_bytes()).expect_err(name);
        }
        let meaning = |name: &'static str| meaning(OsStr::new(name));
        assert_eq!(meaning("a").unwrap(), Meaning::Plain);
        assert_eq!(meaning(".wh..wh..opq").unwrap(), Meaning::Opaque);
        assert_eq!(meaning(".wh..wh.plnk").unwrap(), Meaning::Nothing);
        assert_eq!(
            meaning(".wh.a").unwrap(),
            Meaning::Whiteout(OsStr::new("a"))
        );
        for name in [".wh.", ".wh..", ".wh..."] {
            meaning(name).expect_err(name);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_clean_is_relative_and_plain(path in prop::collection::vec(
            prop::sample::select(vec!["a", "..", ".", "", "b"]), 0..8)) {
            if let Ok(clean) = clean(path.join("/").as_bytes()) {
                let is_plain = |part| matches!(part, std::path::Component::Normal(_));
                prop_assert!(clean.components().all(is_plain));
            }
        }
    }
}
