//! The records of images: a name, and the descriptor it stands for.

use core_api::images::{
    CreateImageRequest, DeleteImageRequest, GetImageRequest, Image, ListImagesRequest,
    UpdateImageRequest,
};
use oci_spec::image::{Descriptor, Digest};
use tonic::Code;

use super::manifest;
use crate::connection::Connection;
use crate::error::{Context, Error, Result};

/// The registry that is meant where none is said.
const REGISTRY: &str = "docker.io";
/// The longest name, without tag and digest.
const LONGEST: usize = 255;

/// The whole name of an image as people write it: `busybox` is
/// `docker.io/library/busybox:latest`. A name with a digest gets no tag.
///
/// # Errors
/// It is no name of an image.
pub(crate) fn normalise(text: &str) -> Result<String> {
    let refuse = |why: &str| Error::said(format!("{text:?} is no name of an image: {why}"));
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if let Some(digest) = digest {
        Digest::try_from(digest).map_err(|_| refuse("what follows @ must be a digest"))?;
    }
    // A colon before the last slash belongs to the port of the registry.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag
        && !is_tag(tag)
    {
        return Err(refuse(
            "a tag is made of letters, digits, and _ . - inside, 128 at most",
        ));
    }
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => (first, path.to_owned()),
        _ if name.contains('/') => (REGISTRY, name.to_owned()),
        _ => (REGISTRY, format!("library/{name}")),
    };
    let registry = if registry == "index.docker.io" {
        REGISTRY
    } else {
        registry
    };
    let path = match path.split_once('/') {
        None if registry == REGISTRY => format!("library/{path}"),
        _ => path,
    };
    if !is_host(registry) {
        return Err(refuse("the registry's name holds what no host's name does"));
    }
    if path.len() + registry.len() >= LONGEST {
        return Err(refuse("it is too long"));
    }
    if !path.split('/').all(is_component) {
        return Err(refuse(
            "each part is made of small letters and digits, with single . _ or - inside",
        ));
    }
    let mut whole = format!("{registry}/{path}");
    match (tag, digest) {
        (None, None) => whole += ":latest",
        (tag, digest) => {
            for (mark, part) in [(':', tag), ('@', digest)] {
                if let Some(part) = part {
                    whole.push(mark);
                    whole += part;
                }
            }
        }
    }
    Ok(whole)
}

/// Whether the first part of a name is a registry and not part of a path.
fn is_registry(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.bytes().any(|b| b.is_ascii_uppercase())
}

/// Whether it can be a host with, perhaps, a port.
fn is_host(registry: &str) -> bool {
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let is_word = |word: &str| {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !word.is_empty()
            && word.bytes().all(legal)
            && !word.starts_with('-')
            && !word.ends_with('-')
    };
    let is_v6 = |host: &str| {
        let inside = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        inside.is_some_and(|inside| inside.parse::<std::net::Ipv6Addr>().is_ok())
    };
    (host.split('.').all(is_word) || is_v6(host)) && port.is_none_or(is_port)
}

/// Whether it can be a tag.
pub(crate) fn is_tag(tag: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let starts =
        |tag: &str| tag.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_');
    tag.len() <= 128 && tag.bytes().all(legal) && starts(tag)
}

/// Small letters and digits, with separators (one of `.` and `_`, two `_`, or `-`s) between them.
fn is_component(part: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [part.bytes().next(), part.bytes().next_back()];
    let legal = |byte: u8| is_word(byte) || b"._-".contains(&byte);
    let doubled = ["..", "___", "._", "_.", ".-", "-.", "_-", "-_"];
    ends.iter().all(|end| end.is_some_and(is_word))
        && part.bytes().all(legal)
        && !doubled.iter().any(|wrong| part.contains(wrong))
}

/// The record of exactly this name, if there is one.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn get(connection: &Connection, name: &str) -> Result<Option<Image>> {
    let request = GetImageRequest {
        name: name.to_owned(),
    };
    match connection.images().get(request).await {
        Ok(answer) => Ok(answer.into_inner().image),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(Error::refused(name, status)),
    }
}

/// The record that a person means: of the name as it was typed, or as it is whole.
///
/// # Errors
/// There is none, or the daemon's refusal.
pub(crate) async fn find(connection: &Connection, typed: &str) -> Result<Option<Image>> {
    if typed.is_empty() {
        return Err(Error::said("the name of an image cannot be empty"));
    }
    if let Some(image) = get(connection, typed).await? {
        return Ok(Some(image));
    }
    match normalise(typed) {
        Ok(whole) if whole != typed => get(connection, &whole).await,
        _ => Ok(None),
    }
}

/// The descriptor that a record stands for.
///
/// # Errors
/// The record holds none.
pub(crate) fn target(image: &Image) -> Result<Descriptor> {
    let target = image.target.as_ref();
    let target = target.ok_or_else(|| Error::said(format!("{} names nothing", image.name)))?;
    manifest::from_wire(target)
}

/// Lets a name stand for a descriptor, whatever it stood for; its labels stay.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn set(connection: &Connection, name: &str, target: &Descriptor) -> Result<Image> {
    let image = Image {
        name: name.to_owned(),
        target: Some(manifest::to_wire(target)),
        ..Image::default()
    };
    // Each answer may be out of date when the next call is made, but not for ever.
    loop {
        let request = UpdateImageRequest {
            image: Some(image.clone()),
            update_mask: Some(core_api::FieldMask {
                paths: vec!["target".to_owned()],
            }),
            ..UpdateImageRequest::default()
        };
        match connection.images().update(request).await {
            Err(status) if status.code() == Code::NotFound => {}
            updated => {
                let updated = updated.about(name)?.into_inner().image;
                return Ok(updated.unwrap_or(image));
            }
        }
        let request = CreateImageRequest {
            image: Some(image.clone()),
            ..CreateImageRequest::default()
        };
        match connection.images().create(request).await {
            Err(status) if status.code() == Code::AlreadyExists => {}
            created => {
                let created = created.about(name)?.into_inner().image;
                return Ok(created.unwrap_or(image));
            }
        }
    }
}

/// All records that a filter of containerd's grammar takes, all if there is none; by name.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn list(connection: &Connection, filters: &[String]) -> Result<Vec<Image>> {
    let request = ListImagesRequest {
        filters: filters.to_vec(),
    };
    let answer = connection.images().list(request).await;
    let mut images = answer.about("cannot list images")?.into_inner().images;
    images.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(images)
}

/// Removes a record; with `sync`, the answer comes after what it alone kept is gone.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn delete(connection: &Connection, name: &str, sync: bool) -> Result<()> {
    let request = DeleteImageRequest {
        name: name.to_owned(),
        sync,
        ..DeleteImageRequest::default()
    };
    let deleted = connection.images().delete(request).await;
    deleted.map(drop).about(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_made_whole() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (typed, whole) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/a/b", "docker.io/a/b:latest"),
            ("user/app", "docker.io/user/app:latest"),
            ("quay.io/a/b/c:v1", "quay.io/a/b/c:v1"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("127.0.0.1:5000/a/app:x", "127.0.0.1:5000/a/app:x"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("a__b/c--d.e", "docker.io/a__b/c--d.e:latest"),
        ] {
            assert_eq!(normalise(typed).unwrap(), whole);
        }
        let pinned = normalise(&format!("busybox@{digest}")).unwrap();
        assert_eq!(pinned, format!("docker.io/library/busybox@{digest}"));
        let both = normalise(&format!("a:1@{digest}")).unwrap();
        assert_eq!(both, format!("docker.io/library/a:1@{digest}"));
        let long = "a".repeat(300);
        for wrong in [
            "", ":x", "a:", "A", "a/B", "a b", "a//b", "../a", "a/../b", "-a", "a..b", "a:b c",
            "a@b", "x.y/", "x.y/a:$", "a___b", &long,
        ] {
            let said = normalise(wrong).unwrap_err().to_string();
            assert!(said.contains("is no name of an image"), "{said}");
        }
    }

    proptest! {
        #[test]
        fn a_whole_name_stays(text in r"[a-zA-Z0-9./:@_-]{0,30}") {
            if let Ok(whole) = normalise(&text) {
                prop_assert_eq!(normalise(&whole).unwrap(), whole);
            }
        }
    }
}
