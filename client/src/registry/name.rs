//! Names of images, as people write them and as everything else knows them.

use std::fmt;
use std::net::IpAddr;

use oci_spec::distribution::{ParseError, Reference};

use crate::error::{Error, Result};

/// A whole name: registry, repository, and a tag, a digest or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(Reference);

impl Name {
    /// Reads a name the way Docker does: `busybox` is `docker.io/library/busybox:latest`.
    ///
    /// # Errors
    /// It is none; the words say why.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        text.parse().map(Self).map_err(|fault| {
            let has_capitals = fault == ParseError::ReferenceInvalidFormat
                && text.to_lowercase().parse::<Reference>().is_ok();
            let why = if has_capitals {
                ParseError::NameContainsUppercase.to_string()
            } else {
                fault.to_string()
            };
            Error::said(format!(
                "{text:?} is no name of an image: {why} (names are such as busybox, \
                 quay.io/team/app:1.2 and localhost:5000/app@sha256:DIGEST)"
            ))
        })
    }

    /// The registry as it is in the name, with its port if there is one.
    pub(crate) fn registry(&self) -> &str {
        self.0.registry()
    }

    /// The repository in the registry.
    pub(crate) fn repository(&self) -> &str {
        self.0.repository()
    }

    /// The digest, if it names one.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.0.digest()
    }

    /// The tag, if it names one.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.0.tag()
    }

    /// What a registry is asked for: the digest, or else the tag.
    pub(crate) fn reference(&self) -> &str {
        let tag = self.tag().unwrap_or("latest");
        self.digest().unwrap_or(tag)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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
    fn names_are_completed() {
        let digest = format!("sha256:{}", "a1".repeat(32));
        for (written, meant) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("team/app", "docker.io/team/app:latest"),
            (
                "index.docker.io/busybox",
                "docker.io/library/busybox:latest",
            ),
            ("localhost/app", "localhost/app:latest"),
            ("127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000/a/b/c:x"),
            ("quay.io/app", "quay.io/app:latest"),
        ] {
            assert_eq!(Name::parse(written).unwrap().to_string(), meant);
        }
        let name = Name::parse(&format!("quay.io:1/app:2@{digest}")).unwrap();
        assert_eq!(name.registry(), "quay.io:1");
        assert_eq!(name.reference(), digest);
        assert_eq!(name.tag(), Some("2"));
        let name = Name::parse(&format!("app@{digest}")).unwrap();
        assert_eq!(name.to_string(), format!("docker.io/library/app@{digest}"));
        assert_eq!(name.tag(), None);
    }

    #[test]
    fn what_is_no_name_is_said() {
        for text in [
            "",
            ":x",
            "a b",
            "a//b",
            "a@sha256:1",
            "http://a/b",
            "-a",
            "a:",
        ] {
            let said = Name::parse(text).unwrap_err().to_string();
            assert!(said.contains(&format!("{text:?}")), "{said}");
        }
        let said = Name::parse("quay.io/App").unwrap_err().to_string();
        assert!(said.contains("lowercase"), "{said}");
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
