//! The few fields of config.json that a shim looks at. The rest is skipped where it stands, and
//! the file is never written back: what the shim does not know it must not lose.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Annotation that names the group of containers that share one shim.
pub const GROUP_ANNOTATION: &str = "io.containerd.runc.v2.group";
/// CRI's annotation with the pod's id, which groups a pod's containers.
pub const SANDBOX_ANNOTATION: &str = "io.kubernetes.cri.sandbox-id";

/// The longest config.json that is read, in bytes; a spec with thousands of mounts stays far
/// below.
const LIMIT: u64 = 64 * 1024 * 1024;

/// The view of a spec, borrowed from its text.
#[derive(Debug, Default, Deserialize)]
pub struct Spec<'a> {
    /// The annotations; empty when there are none.
    #[serde(borrow, default)]
    annotations: Option<HashMap<Cow<'a, str>, Cow<'a, str>>>,
    #[serde(borrow, default)]
    linux: Option<Linux<'a>>,
    #[serde(default)]
    process: Option<Process>,
}

#[derive(Debug, Default, Deserialize)]
struct Linux<'a> {
    #[serde(borrow, default, rename = "cgroupsPath")]
    cgroups_path: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    namespaces: Option<Vec<Namespace<'a>>>,
}

#[derive(Debug, Deserialize)]
struct Namespace<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    path: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
struct Process {
    #[serde(default)]
    terminal: bool,
}

/// A config.json that could not be used.
#[derive(Debug)]
pub enum SpecError {
    /// It could not be read.
    Read(PathBuf, io::Error),
    /// It is not the JSON of a spec.
    Malformed(PathBuf, serde_json::Error),
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "read {}: {error}", path.display()),
            Self::Malformed(path, error) => write!(f, "malformed spec {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for SpecError {}

/// Reads the text of the spec at `path`; [`Spec::parse`] gives the view of it.
///
/// # Errors
/// Failures of reading, and a file of more than 64 MiB.
pub fn read(path: &Path) -> Result<Vec<u8>, SpecError> {
    let read = || {
        let file = std::fs::File::open(path)?;
        let size = file.metadata()?.len();
        if size > LIMIT {
            let text = format!("{size} bytes are more than {LIMIT}");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        // With room for the whole text and for the end of it, two reads do.
        let mut text = Vec::with_capacity(usize::try_from(size).unwrap_or(0) + 1);
        file.take(LIMIT).read_to_end(&mut text)?;
        Ok(text)
    };
    read().map_err(|error| SpecError::Read(path.to_owned(), error))
}

impl<'a> Spec<'a> {
    /// The view of the spec in `text`, which came from `path`.
    ///
    /// # Errors
    /// Text that is not the JSON of a spec, naming the path, the line and the column.
    pub fn parse(path: &Path, text: &'a [u8]) -> Result<Self, SpecError> {
        serde_json::from_slice(text).map_err(|error| SpecError::Malformed(path.to_owned(), error))
    }

    /// One annotation; an empty one counts as absent, as with the Go shims.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        let annotations = self.annotations.as_ref()?;
        annotations
            .get(name)
            .map(AsRef::as_ref)
            .filter(|value: &&str| !value.is_empty())
    }

    /// The group whose shim serves this container, if it names one.
    pub fn group(&self) -> Option<&str> {
        self.annotation(GROUP_ANNOTATION)
            .or_else(|| self.annotation(SANDBOX_ANNOTATION))
    }

    /// The container's cgroup as the spec names it; empty counts as absent.
    pub fn cgroups_path(&self) -> Option<&str> {
        self.linux
            .as_ref()?
            .cgroups_path
            .as_deref()
            .filter(|path| !path.is_empty())
    }

    /// Whether the container gets a PID namespace of its own: one without a path to join. Then
    /// the kernel kills all of it with its first process.
    pub fn has_private_pid_namespace(&self) -> bool {
        let namespaces = self
            .linux
            .as_ref()
            .and_then(|linux| linux.namespaces.as_ref());
        namespaces.is_some_and(|list| {
            list.iter()
                .any(|namespace| namespace.kind == "pid" && namespace.path.is_empty())
        })
    }

    /// Whether the container's first process gets a terminal.
    pub fn terminal(&self) -> bool {
        self.process
            .as_ref()
            .is_some_and(|process| process.terminal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Spec<'_>, SpecError> {
        Spec::parse(Path::new("/b/config.json"), text.as_bytes())
    }

    #[test]
    fn the_fields_a_shim_needs_are_found_among_the_rest() {
        let spec = parse(
            r#"{"ociVersion":"1.1","process":{"terminal":true,"args":["a"]},
            "annotations":{"io.kubernetes.cri.sandbox-id":"pod\u0031","x":"y"},
            "linux":{"cgroupsPath":"/k/c","resources":{"devices":[{"allow":false}]},
            "namespaces":[{"type":"ipc"},{"type":"pid"}]}}"#,
        )
        .unwrap();
        assert_eq!(spec.group(), Some("pod1"));
        assert_eq!(spec.cgroups_path(), Some("/k/c"));
        assert!(spec.terminal() && spec.has_private_pid_namespace());
    }

    #[test]
    fn the_own_group_annotation_goes_before_the_pods() {
        let both =
            format!(r#"{{"annotations":{{"{SANDBOX_ANNOTATION}":"p","{GROUP_ANNOTATION}":"g"}}}}"#);
        assert_eq!(parse(&both).unwrap().group(), Some("g"));
        let empty = both.replace("\"g\"", "\"\"");
        assert_eq!(parse(&empty).unwrap().group(), Some("p"));
        assert_eq!(parse("{}").unwrap().group(), None);
    }

    #[test]
    fn a_joined_pid_namespace_is_not_private() {
        for text in [
            r#"{"linux":{"namespaces":[{"type":"pid","path":"/proc/1/ns/pid"}]}}"#,
            r#"{"linux":{"namespaces":[{"type":"mount"}]}}"#,
            r#"{"linux":{"namespaces":null}}"#,
            r#"{"linux":null,"annotations":null,"process":null}"#,
            "{}",
        ] {
            assert!(!parse(text).unwrap().has_private_pid_namespace(), "{text}");
        }
    }

    #[test]
    fn a_malformed_spec_is_named_by_its_path() {
        for text in ["", "{", "[1]", r#"{"annotations":{"a":1}}"#, "\u{0}"] {
            let error = parse(text).unwrap_err().to_string();
            assert!(
                error.starts_with("malformed spec /b/config.json: "),
                "{error}"
            );
        }
        let error = read(Path::new("/nonexistent/config.json"))
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("read /nonexistent/config.json: "),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn no_text_is_fatal(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Spec::parse(Path::new("x"), &text);
        }
    }
}
