//! The names of the images in an archive.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::image::record;

/// The whole name, as containerd's clients write it.
pub(crate) const NAME: &str = "io.containerd.image.name";
/// A tag, as OCI has it; many write a whole name.
pub(crate) const REF: &str = "org.opencontainers.image.ref.name";

/// The name of an image by its annotations; `base` is
/// put before a mere tag. None if they do not tell one.
///
/// # Errors
/// What they tell is no name.
pub(crate) fn of_annotations(
    annotations: &HashMap<String, String>,
    base: Option<&str>,
) -> Result<Option<String>> {
    let in_archive = |name: &str| {
        let whole = record::normalise(name);
        whole
            .map_err(|error| Error::said(format!("the archive's index: {error}")))
            .map(Some)
    };
    if let Some(name) = annotations.get(NAME).filter(|name| !name.is_empty()) {
        return in_archive(name);
    }
    match (annotations.get(REF), base) {
        (Some(name), _) if name.contains(['/', ':', '@']) => in_archive(name),
        (Some(tag), Some(base)) if record::is_tag(tag) => tagged(base, tag).map(Some),
        (Some(tag), Some(_)) => Err(Error::said(format!(
            "the archive's index: {tag:?} is no tag"
        ))),
        (None, Some(base)) => record::normalise(base).map(Some),
        (_, None) => Ok(None),
    }
}

/// A base name with a tag.
fn tagged(base: &str, tag: &str) -> Result<String> {
    let whole = record::normalise(base)?;
    let name = whole
        .strip_suffix(":latest")
        .filter(|_| !base.ends_with(":latest"));
    let name = name.ok_or_else(|| {
        Error::said(format!(
            "--base-name {base:?}: a base name has no tag and no digest"
        ))
    })?;
    record::normalise(&format!("{name}:{tag}"))
}

/// The error of an archive without names.
pub(crate) fn missing(tags: &[String]) -> Error {
    let there = match tags {
        [] => "the archive does not say how its image is named".to_owned(),
        tags => format!(
            "the archive says no more of a name than {}",
            tags.join(", ")
        ),
    };
    Error::said(format!(
        "{there}: say it with --name NAME, or --base-name NAME for the part before the tag"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_tell_names() {
        let name = |pairs: &[(&str, &str)], base| {
            let pairs = pairs
                .iter()
                .map(|&(key, value)| (key.to_owned(), value.to_owned()));
            of_annotations(&pairs.collect(), base)
        };
        let full = name(&[(NAME, "docker.io/library/a:1"), (REF, "2")], Some("b"));
        assert_eq!(full.unwrap().unwrap(), "docker.io/library/a:1");
        assert_eq!(
            name(&[(REF, "a:1")], None).unwrap().unwrap(),
            "docker.io/library/a:1"
        );
        assert_eq!(
            name(&[(REF, "1")], Some("x.y/b")).unwrap().unwrap(),
            "x.y/b:1"
        );
        assert_eq!(name(&[], Some("x.y/b")).unwrap().unwrap(), "x.y/b:latest");
        assert_eq!(name(&[(REF, "latest")], None).unwrap(), None);
        name(&[(REF, "a b")], Some("b")).unwrap_err();
        name(&[(REF, "1")], Some("b:2")).unwrap_err();
        let said = name(&[(NAME, "../../x")], None).unwrap_err().to_string();
        assert!(said.contains("index"), "{said}");
    }
}
