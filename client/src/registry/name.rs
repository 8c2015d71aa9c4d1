//! Names of images as a registry needs them, in their parts.

use std::fmt;
use std::net::IpAddr;

use crate::error::Result;
use crate::image::record;

/// A whole name: registry, repository, and a tag, a digest or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Name {
    /// Reads a name as people write it: `busybox` is `docker.io/library/busybox:latest`.
    ///
    /// # Errors
    /// It is none; the words say why.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let whole = record::normalise(text)?;
        let (rest, digest) = match whole.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.to_owned())),
            None => (whole.as_str(), None),
        };
        // What is whole has a registry, and a colon after the last slash is the tag's.
        let (registry, path) = rest.split_once('/').unwrap_or(("", rest));
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (path, None),
        };
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag,
            digest,
        })
    }

    /// The registry as it is in the name, with its port if there is one.
    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in the registry.
    pub(crate) fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest, if it names one.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// The tag, if it names one.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The same name with this digest in the place of any other.
    pub(crate) fn with_digest(&self, digest: &str) -> Self {
        Self {
            digest: Some(digest.to_owned()),
            ..self.clone()
        }
    }

    /// What a registry is asked for: the digest, or else the tag.
    pub(crate) fn reference(&self) -> &str {
        let tag = self.tag().unwrap_or("latest");
        self.digest().unwrap_or(tag)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// Whether a host, with or without a port, is this machine itself.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = match host.rsplit_once(':') {
        Some((bare, _)) if !bare.contains(':') || bare.ends_with(']') => bare,
        _ => host,
    };
    let bare = bare.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_parts() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        let parts = |text: &str| {
            let name = Name::parse(text).unwrap();
            assert_eq!(Name::parse(&name.to_string()).unwrap(), name);
            let asked = name.reference().to_owned();
            (name.registry, name.repository, asked)
        };
        let three = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(
            parts("busybox"),
            three("docker.io", "library/busybox", "latest")
        );
        let local = "127.0.0.1:5000";
        assert_eq!(parts("127.0.0.1:5000/a/b:x"), three(local, "a/b", "x"));
        assert_eq!(parts("[::1]:5000/a"), three("[::1]:5000", "a", "latest"));
        assert_eq!(
            parts(&format!("quay.io/a@{digest}")),
            three("quay.io", "a", &digest)
        );
        assert_eq!(
            parts(&format!("quay.io/a:1@{digest}")),
            three("quay.io", "a", &digest)
        );
        Name::parse("a b").unwrap_err();
    }

    #[test]
    fn this_machine_is_known() {
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:80",
            "127.1.2.3",
            "[::1]:5",
            "::1",
        ] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example",
            "10.0.0.1:5000",
            "registry",
            "128.0.0.1",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
