//! Digests: of bytes that are here, and whether bytes have the one that was said.

use oci_spec::image::{Digest, DigestAlgorithm};
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{Error, Result};

/// The SHA-256 of bytes.
pub(crate) fn of(bytes: &[u8]) -> Digest {
    named(&Sha256::digest(bytes))
}

/// The SHA-256 of bytes that come one after the other.
#[derive(Debug, Default)]
pub(crate) struct Sum(Sha256);

impl Sum {
    /// More bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all.
    pub(crate) fn digest(self) -> Digest {
        named(&self.0.finalize())
    }
}

fn named(sum: &[u8]) -> Digest {
    // The grammar of digests holds what is made here.
    Digest::try_from(format!("sha256:{}", hex(sum)))
        .unwrap_or_else(|_| unreachable!("a SHA-256 in hexadecimal digits"))
}

/// The SHA-256 of text as the link of a chain.
pub(crate) fn sha256_text(text: &str) -> String {
    of(text.as_bytes()).to_string()
}

/// Refuses bytes that do not have the digest.
///
/// # Errors
/// Another digest, or one of a kind that cannot be checked.
pub(crate) fn verify(digest: &Digest, bytes: &[u8]) -> Result<()> {
    let found = match digest.algorithm() {
        DigestAlgorithm::Sha256 => hex(&Sha256::digest(bytes)),
        DigestAlgorithm::Sha512 => hex(&Sha512::digest(bytes)),
        other => {
            let text = format!("{digest}: digests of the kind {other} are not supported");
            return Err(Error::said(text));
        }
    };
    if found == digest.digest() {
        return Ok(());
    }
    let kind = digest.algorithm();
    Err(Error::said(format!(
        "{digest} is damaged: its bytes have the digest {kind}:{found}"
    )))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The first digits, for people.
pub(crate) fn short(digest: &str) -> &str {
    let digits = digest.split_once(':').map_or(digest, |(_, digits)| digits);
    digits.get(..12).unwrap_or(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_checked() {
        let empty = of(b"");
        let known = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(empty.to_string(), known);
        verify(&empty, b"").unwrap();
        let said = verify(&empty, b"x").unwrap_err().to_string();
        assert!(said.contains("damaged"), "{said}");
        let long = format!("sha512:{}", hex(&Sha512::digest(b"x")));
        verify(&Digest::try_from(long).unwrap(), b"x").unwrap();
        verify(&Digest::try_from("md5:abc").unwrap(), b"").unwrap_err();
        assert_eq!(short(known), "e3b0c44298fc");
        assert_eq!(short("sha256:ab"), "ab");
    }
}
