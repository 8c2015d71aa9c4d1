//! Platforms: this machine's, those that people write, and which manifest of an index fits best.

use std::fmt;
use std::str::FromStr;

use oci_spec::image::{Descriptor, ImageConfiguration};

use super::manifest::{Kind, kind};
use crate::error::{Error, Result};

/// What marks a manifest that says something about another one.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// An operating system on a kind of processor, by the names that images use (Go's).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Platform {
    os: String,
    architecture: String,
    /// Empty for the plain one.
    variant: String,
}

impl Platform {
    /// From the names of a descriptor or a command line, in the one form that each has.
    pub(crate) fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        let said = variant.to_ascii_lowercase();
        let (architecture, variant) = match architecture.to_ascii_lowercase().as_str() {
            "i386" | "i486" | "i586" | "i686" | "x86" | "386" => ("386".to_owned(), String::new()),
            "x86_64" | "x86-64" | "amd64" if said == "v1" => ("amd64".to_owned(), String::new()),
            "x86_64" | "x86-64" | "amd64" => ("amd64".to_owned(), said),
            "aarch64" | "arm64" if matches!(said.as_str(), "8" | "v8") => {
                ("arm64".to_owned(), String::new())
            }
            "aarch64" | "arm64" => ("arm64".to_owned(), said),
            "armhf" => ("arm".to_owned(), "v7".to_owned()),
            "armel" => ("arm".to_owned(), "v6".to_owned()),
            "arm" => ("arm".to_owned(), arm_variant(&said)),
            "powerpc64le" => ("ppc64le".to_owned(), said),
            "loongarch64" => ("loong64".to_owned(), said),
            other => (other.to_owned(), said),
        };
        Self {
            os,
            architecture,
            variant,
        }
    }

    /// This machine's, as far as this program is built for it.
    pub(crate) fn here() -> Self {
        Self::new("linux", std::env::consts::ARCH, "")
    }

    /// What a descriptor or the image's configuration says of its platform.
    pub(crate) fn of_config(config: &ImageConfiguration) -> Self {
        let variant = config.variant().as_deref().unwrap_or_default();
        Self::new(
            &config.os().to_string(),
            &config.architecture().to_string(),
            variant,
        )
    }

    /// The platform of a manifest in an index, if the index says it.
    pub(crate) fn of_descriptor(descriptor: &Descriptor) -> Option<Self> {
        let said = descriptor.platform().as_ref()?;
        let variant = said.variant().as_deref().unwrap_or_default();
        Some(Self::new(
            &said.os().to_string(),
            &said.architecture().to_string(),
            variant,
        ))
    }

    /// How well what is made for `other` runs on this one: 0 is best, none is not at all.
    pub(crate) fn rank(&self, other: &Self) -> Option<usize> {
        if self.os != other.os {
            return None;
        }
        self.runs().iter().position(|(architecture, variant)| {
            *architecture == other.architecture && *variant == other.variant
        })
    }

    /// What runs on it, best first.
    fn runs(&self) -> Vec<(&str, &str)> {
        const ARM: [&str; 4] = ["v8", "v7", "v6", "v5"];
        const AMD64: [&str; 4] = ["v4", "v3", "v2", ""];
        let down = |all: &'static [&'static str], from: &str| -> Vec<&'static str> {
            all.iter()
                .copied()
                .skip_while(|&variant| variant != from)
                .collect()
        };
        let mut runs = vec![(self.architecture.as_str(), self.variant.as_str())];
        match self.architecture.as_str() {
            "arm" => runs.extend(
                down(&ARM, &self.variant)
                    .into_iter()
                    .map(|variant| ("arm", variant)),
            ),
            "arm64" => {
                runs.push(("arm64", ""));
                runs.extend(ARM.map(|variant| ("arm", variant)));
            }
            "amd64" => {
                let lesser = down(&AMD64, &self.variant).into_iter();
                runs.extend(lesser.map(|variant| ("amd64", variant)));
                runs.push(("386", ""));
            }
            _ => {}
        }
        runs
    }
}

/// Version 7 is meant where no version is said.
fn arm_variant(said: &str) -> String {
    match said {
        "" => "v7".to_owned(),
        said if said.starts_with('v') => said.to_owned(),
        said => format!("v{said}"),
    }
}

impl FromStr for Platform {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let words: Vec<&str> = text.split('/').collect();
        let is_word = |word: &&str| {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            !word.is_empty() && word.bytes().all(legal)
        };
        match words[..] {
            [os, architecture] if words.iter().all(is_word) => Ok(Self::new(os, architecture, "")),
            [os, architecture, variant] if words.iter().all(is_word) => {
                Ok(Self::new(os, architecture, variant))
            }
            _ => Err("a platform is OS/ARCHITECTURE[/VARIANT], as in linux/arm64".to_owned()),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// Whether a manifest of an index is an image at all: others tell how an image was built.
pub(crate) fn is_image(descriptor: &Descriptor) -> bool {
    let annotations = descriptor.annotations().as_ref();
    matches!(kind(descriptor.media_type()), Kind::Manifest | Kind::Index)
        && !annotations.is_some_and(|annotations| annotations.contains_key(ATTESTATION))
}

/// Those manifests of an index that may be for a platform, best first: of equals the earlier, and
/// those of which the index does not say it last.
pub(crate) fn fitting<'a>(manifests: &'a [Descriptor], wanted: &Platform) -> Vec<&'a Descriptor> {
    let mut found: Vec<(usize, &Descriptor)> = manifests
        .iter()
        .filter(|descriptor| is_image(descriptor))
        .filter_map(|descriptor| match Platform::of_descriptor(descriptor) {
            Some(platform) => wanted.rank(&platform).map(|rank| (rank, descriptor)),
            None => Some((usize::MAX, descriptor)),
        })
        .collect();
    found.sort_by_key(|(rank, _)| *rank);
    found
        .into_iter()
        .map(|(_, descriptor)| descriptor)
        .collect()
}

/// The manifest of an index that fits a platform best.
///
/// # Errors
/// None fits; the platforms that there are, are said.
pub(crate) fn best<'a>(
    name: &str,
    manifests: &'a [Descriptor],
    wanted: &Platform,
) -> Result<&'a Descriptor> {
    if let Some(best) = fitting(manifests, wanted).first() {
        return Ok(best);
    }
    let images = manifests.iter().filter(|descriptor| is_image(descriptor));
    let mut there: Vec<String> = images
        .filter_map(Platform::of_descriptor)
        .map(|platform| platform.to_string())
        .take(20)
        .collect();
    there.dedup();
    let there = if there.is_empty() {
        "none".to_owned()
    } else {
        there.join(", ")
    };
    Err(Error::said(format!(
        "{name} holds nothing for {wanted}; what it holds: {there}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::image::{Digest, MediaType};

    fn platform(text: &str) -> Platform {
        text.parse().unwrap()
    }

    fn entry(text: &str, size: u64) -> Descriptor {
        let digest = Digest::try_from(format!("sha256:{}", "a".repeat(64))).unwrap();
        let mut made = Descriptor::new(MediaType::ImageManifest, size, digest);
        let words: Vec<&str> = text.split('/').collect();
        if let [os, architecture, rest @ ..] = &words[..] {
            let mut said = oci_spec::image::Platform::default();
            said.set_os((*os).into());
            said.set_architecture((*architecture).into());
            said.set_variant(rest.first().map(|&variant| variant.to_owned()));
            made.set_platform(Some(said));
        }
        made
    }

    #[test]
    fn a_platform_has_many_names() {
        let one = |text: &str| platform(text).to_string();
        assert_eq!(one("linux/x86_64"), "linux/amd64");
        assert_eq!(one("Linux/aarch64/v8"), "linux/arm64");
        assert_eq!(one("linux/arm"), "linux/arm/v7");
        assert_eq!(one("linux/arm/6"), "linux/arm/v6");
        assert_eq!(one("linux/armhf"), "linux/arm/v7");
        assert_eq!(one("linux/riscv64"), "linux/riscv64");
        for wrong in ["", "linux", "linux/", "a/b/c/d", "linux/a b", "/x"] {
            wrong.parse::<Platform>().unwrap_err();
        }
    }

    #[test]
    fn the_best_of_an_index_is_chosen() {
        let index = [
            entry("unknown/unknown", 1),
            entry("linux/386", 2),
            entry("linux/amd64/v3", 3),
            entry("linux/amd64", 4),
            entry("linux/amd64", 5),
            entry("linux/arm/v5", 6),
            entry("linux/arm/v6", 7),
            entry("linux/arm64/v8", 8),
        ];
        let best = |text: &str| best("x", &index, &platform(text)).map(Descriptor::size);
        assert_eq!(best("linux/amd64").unwrap(), 4);
        assert_eq!(best("linux/amd64/v4").unwrap(), 3);
        assert_eq!(best("linux/arm/v7").unwrap(), 7);
        assert_eq!(best("linux/arm64").unwrap(), 8);
        assert_eq!(best("linux/386").unwrap(), 2);
        let said = best("windows/amd64").unwrap_err().to_string();
        assert!(
            said.contains("windows/amd64; what it holds: unknown/unknown, linux/386"),
            "{said}"
        );
        // Of one that says nothing only its configuration tells.
        assert_eq!(
            fitting(&[entry("", 9)], &platform("linux/arm64"))[0].size(),
            9
        );
    }
}
