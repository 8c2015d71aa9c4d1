//! Media types of layers: which there are and how they may be compressed.

use tonic::Status;

use crate::status;

/// The layer of OCI images as it is when nothing compresses it.
pub const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
/// The usual layer of OCI images.
pub const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// The layer of OCI images in Zstandard.
pub const TAR_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// How a layer is, or is to be, compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// How the bytes of a layer are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// As they are: the media type says that nothing compresses them.
    Plain,
    /// By what they begin with: media types are not to be trusted about the kind of compression,
    /// and Docker's of old are not about whether there is one.
    Sniff,
}

/// How to read a layer of this media type.
///
/// # Errors
/// `Unimplemented` for what is no layer.
pub fn reading(media_type: &str) -> Result<Reading, Status> {
    let (base, suffix) = match media_type.split_once('+') {
        Some((base, suffix)) => (base, Some(suffix.rsplit('+').next().unwrap_or(suffix))),
        None => (media_type, None),
    };
    match base {
        "application/vnd.docker.image.rootfs.diff.tar"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
            if suffix.is_none() =>
        {
            Ok(Reading::Sniff)
        }
        TAR | "application/vnd.oci.image.layer.nondistributable.v1.tar" => match suffix {
            None => Ok(Reading::Plain),
            Some("gzip" | "zstd") => Ok(Reading::Sniff),
            Some(_) => Err(unknown(media_type)),
        },
        _ => Err(unknown(media_type)),
    }
}

fn unknown(media_type: &str) -> Status {
    if media_type.ends_with("+encrypted") {
        return status::unimplemented(format_args!(
            "media-type {media_type:?}: the layer is encrypted, and there is no processor that \
             decrypts layers"
        ));
    }
    status::unimplemented(format_args!("no processor for media-type {media_type:?}"))
}

/// The compression that begins with these bytes.
pub fn sniff(start: &[u8]) -> Compression {
    if start.starts_with(&[0x1f, 0x8b, 8]) {
        Compression::Gzip
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) || is_skippable_zstd(start) {
        Compression::Zstd
    } else {
        Compression::None
    }
}

/// Zstandard may begin with frames that decoders pass over: 0x184D2A50 to 0x184D2A5F.
fn is_skippable_zstd(start: &[u8]) -> bool {
    matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// What to write for a media type that a client wants made; the usual one for none.
///
/// # Errors
/// `Unimplemented` for any other.
pub fn writing(media_type: &str) -> Result<(&'static str, Compression), Status> {
    match media_type {
        "" | TAR_GZIP => Ok((TAR_GZIP, Compression::Gzip)),
        TAR => Ok((TAR, Compression::None)),
        TAR_ZSTD => Ok((TAR_ZSTD, Compression::Zstd)),
        other => Err(status::unimplemented(format_args!(
            "unsupported diff media type: {other}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_known_by_their_media_type() {
        for (media_type, wanted) in [
            (TAR, Reading::Plain),
            (TAR_GZIP, Reading::Sniff),
            (TAR_ZSTD, Reading::Sniff),
            (
                "application/vnd.docker.image.rootfs.diff.tar",
                Reading::Sniff,
            ),
            (
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                Reading::Sniff,
            ),
            (
                "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                Reading::Sniff,
            ),
        ] {
            assert_eq!(reading(media_type).unwrap(), wanted, "{media_type}");
        }
        for other in [
            "",
            "application/json",
            "application/vnd.oci.image.layer.v1.tar+x",
        ] {
            let refused = reading(other).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::Unimplemented, "{other}");
        }
        assert_eq!(sniff(&[0x1f, 0x8b, 8, 0]), Compression::Gzip);
        assert_eq!(sniff(&[0x51, 0x2a, 0x4d, 0x18, 0]), Compression::Zstd);
        assert_eq!(sniff(b"any"), Compression::None);
    }
}
