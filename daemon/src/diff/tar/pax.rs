//! PAX records: `LENGTH KEY=VALUE\n`, one after the other. Values are bytes: those of attributes
//! contain anything.

use super::{Fault, Moment};

/// What PAX records say about an entry; what nothing here uses is left out.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) modified: Option<Moment>,
    pub(super) accessed: Option<Moment>,
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Sparse,
}

/// What they say about a sparse file, in three ways: 0.0, 0.1 and 1.0.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// Offset and length by turns.
    pub(super) numbers: Vec<u64>,
    pub(super) has_map: bool,
    major: u64,
    minor: u64,
}

impl Sparse {
    /// Whether the map is at the beginning of the data.
    pub(super) fn is_in_data(&self) -> bool {
        (self.major, self.minor) == (1, 0)
    }
}

const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

impl Records {
    /// Reads the data of an extended header.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, Fault> {
        let mut records = Self::default();
        while !bytes.is_empty() {
            // Some writers fill up with NULs.
            if bytes.iter().all(|byte| *byte == 0) {
                break;
            }
            let (key, value, rest) = record(bytes).ok_or_else(malformed)?;
            bytes = rest;
            records.add(key, value).ok_or_else(malformed)?;
        }
        Ok(records)
    }

    fn add(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        if let Some(name) = key.strip_prefix(ATTRIBUTE) {
            self.attributes.push((name.to_vec(), value.to_vec()));
            return Some(());
        }
        // An empty value takes back what the header says, which then holds.
        let is_set = !value.is_empty();
        match key {
            b"path" => self.path = is_set.then(|| value.to_vec()),
            b"linkpath" => self.link = is_set.then(|| value.to_vec()),
            b"GNU.sparse.name" => self.sparse.name = is_set.then(|| value.to_vec()),
            _ if !is_set => {}
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.modified = Some(moment(value)?),
            b"atime" => self.accessed = Some(moment(value)?),
            b"GNU.sparse.major" => self.sparse.major = decimal(value)?,
            b"GNU.sparse.minor" => self.sparse.minor = decimal(value)?,
            b"GNU.sparse.realsize" | b"GNU.sparse.size" => {
                self.sparse.size = Some(decimal(value)?);
            }
            b"GNU.sparse.numblocks" => self.sparse.has_map = true,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                self.sparse.numbers.push(decimal(value)?);
            }
            b"GNU.sparse.map" => {
                let numbers: Option<_> = value.split(|byte| *byte == b',').map(decimal).collect();
                self.sparse.numbers = numbers?;
                self.sparse.has_map = true;
            }
            _ => {}
        }
        Some(())
    }
}

/// The first record and what follows it.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(decimal(&bytes[..space])?).ok()?;
    let text = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = text.iter().position(|byte| *byte == b'=')?;
    let key = &text[..equals];
    (!key.is_empty()).then_some((key, &text[equals + 1..], &bytes[length..]))
}

/// A number in decimal, of digits only.
pub(super) fn decimal(text: &[u8]) -> Option<u64> {
    let is_number = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    is_number.then(|| std::str::from_utf8(text).ok()?.parse().ok())?
}

/// Seconds with any number of decimals, perhaps negative.
fn moment(text: &[u8]) -> Option<Moment> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, part) = match text.iter().position(|byte| *byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &[][..]),
    };
    let seconds = i64::try_from(decimal(whole)?).ok()?;
    if !part.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut nanoseconds = 0;
    for at in 0..9 {
        let digit = part.get(at).map_or(0, |byte| u32::from(byte - b'0'));
        nanoseconds = nanoseconds * 10 + digit;
    }
    Some(match (negative, nanoseconds) {
        (false, _) => Moment {
            seconds,
            nanoseconds,
        },
        (true, 0) => Moment {
            seconds: -seconds,
            nanoseconds: 0,
        },
        // Half a second before -1 is half a second after -2.
        (true, _) => Moment {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

fn malformed() -> Fault {
    Fault::Layer("the archive has malformed PAX records".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bytes_and_times_have_nanoseconds() {
        let records = Records::parse(b"30 mtime=1700000000.123456789\n").unwrap();
        let wanted = Moment {
            seconds: 1_700_000_000,
            nanoseconds: 123_456_789,
        };
        assert_eq!(records.modified, Some(wanted));
        let mut text = b"39 SCHILY.xattr.security.capability=\n\x02\n".to_vec();
        text.extend_from_slice(b"12 path=a\nb\n14 atime=-1.5\n\0\0");
        let records = Records::parse(&text).unwrap();
        assert_eq!(records.path.unwrap(), b"a\nb");
        assert_eq!(records.attributes[0].0, b"security.capability");
        assert_eq!(records.attributes[0].1, b"\n\x02");
        let wanted = Moment {
            seconds: -2,
            nanoseconds: 500_000_000,
        };
        assert_eq!(records.accessed, Some(wanted));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for text in [
            &b"5 a=b\n"[..],
            b"7 a=b\n",
            b"99999999999999999999 a=b\n",
            b"6 =bc\n",
            b"x a=b\n",
            b"9 size=-\n",
            b"0 a=b\n",
            b"1 ",
            b"14 mtime=1e10\n",
        ] {
            Records::parse(text).expect_err(&String::from_utf8_lossy(text));
        }
    }
}
