//! The name of a blob: the SHA-256 of its bytes, written `sha256:` and 64 digits, as the image
//! specification has it (image-spec, descriptor.md, "Digests").

use std::fmt;

use sha2::{Digest as _, Sha256};
use tonic::Status;

use crate::status;

/// A SHA-256, the one algorithm that blobs are stored under.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Reads a digest as clients write it.
    ///
    /// # Errors
    /// `InvalidArgument` that quotes the text; `NotFound` for a digest of another algorithm, since
    /// no blob is stored under one.
    pub fn parse(text: &str) -> Result<Self, Status> {
        let read = || {
            let hex = text.strip_prefix("sha256:")?.as_bytes();
            let mut bytes = [0; 32];
            if hex.len() != 64 {
                return None;
            }
            for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
                *byte = value(pair[0])? << 4 | value(pair[1])?;
            }
            Some(Self(bytes))
        };
        read().ok_or_else(|| {
            if is_digest(text) {
                let text = format!("content digest {text}: blobs are stored by their SHA-256");
                return status::not_found(text);
            }
            // A digest has 71 characters; more would only blow up the message.
            let start: String = text.chars().take(80).collect();
            status::invalid(format_args!(
                "digest {start:?} must be sha256: and 64 lower-case hexadecimal digits"
            ))
        })
    }

    /// What `hash` has seen so far.
    pub fn of(hash: &Sha256) -> Self {
        Self(hash.clone().finalize().into())
    }

    /// The digits alone: the name of the file.
    pub fn hex(&self) -> String {
        use fmt::Write;
        let mut hex = String::with_capacity(64);
        for byte in self.0 {
            // Writing to a String does not fail.
            let _ = write!(hex, "{byte:02x}");
        }
        hex
    }
}

/// Whether `text` is an algorithm that OCI registers, a colon and as many hexadecimal digits as
/// it gives.
pub fn is_digest(text: &str) -> bool {
    let digits = match text.split_once(':') {
        Some(("sha256", digits)) if digits.len() == 64 => digits,
        Some(("sha384", digits)) if digits.len() == 96 => digits,
        Some(("sha512", digits)) if digits.len() == 128 => digits,
        _ => return false,
    };
    digits
        .bytes()
        .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn value(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_reads_what_it_writes_and_nothing_else() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(&Sha256::new()).to_string(), empty);
        assert_eq!(Digest::parse(empty).unwrap(), Digest::of(&Sha256::new()));
        let short = empty.trim_end_matches('5');
        let upper = empty.to_uppercase();
        let path = format!("sha256:../../../../{}", "a".repeat(52));
        let long = "x".repeat(10_000);
        for text in ["", "sha256:", "sha512:00", short, &upper, &path, &long] {
            let refusal = Digest::parse(text).unwrap_err();
            assert_eq!(refusal.code(), tonic::Code::InvalidArgument);
            assert!(refusal.message().len() < 300);
        }
        let other = format!("sha512:{}", "a".repeat(128));
        let refusal = Digest::parse(&other).unwrap_err();
        assert_eq!(refusal.code(), tonic::Code::NotFound);
    }
}
