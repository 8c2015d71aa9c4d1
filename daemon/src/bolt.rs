//! Reading a bbolt database, the file that containerd keeps its records in: whole, without locks,
//! and never writing. It is for a file that nobody writes any more.
//!
//! The file is pages of one size, all numbers little-endian. A page begins with its number (8
//! bytes), its kind (2), how many elements it has (2) and over how many further pages it goes (4).
//! The first two pages are meta pages, of which the newer valid one counts; it names the root of a
//! B+ tree. An element of a branch page names a page below it, one of a leaf page has a key and a
//! value; the value of a bucket is the root of another tree, or a leaf page of its own within the
//! value where it is small.

use std::io;
use std::path::Path;

/// What every meta page has.
const MAGIC: u32 = 0xED0C_DAED;
/// The version of the format.
const VERSION: u32 = 2;
/// The length of a page's own header.
const PAGE_HEADER: usize = 16;
/// The length of an element of a branch or leaf page.
const ELEMENT: usize = 16;
/// Kinds of pages.
const BRANCH: u16 = 1;
const LEAF: u16 = 2;
/// What marks a leaf's element as a bucket.
const IS_BUCKET: u32 = 1;
/// A tree that is deeper than this goes round in circles.
const DEPTH_LIMIT: usize = 32;
/// A file that is longer than this is not read, in bytes.
const FILE_LIMIT: u64 = 1 << 30;

/// A database in memory.
#[derive(Debug)]
pub struct Bolt {
    bytes: Vec<u8>,
    page_size: usize,
    root: u64,
}

/// A table of keys with values or further buckets.
#[derive(Debug, Clone, Copy)]
pub struct Bucket<'b> {
    bolt: &'b Bolt,
    root: u64,
    /// The page of a small bucket, which lies in its value.
    inline: &'b [u8],
}

/// What a key has.
#[derive(Debug, Clone, Copy)]
pub enum Item<'b> {
    /// A value.
    Value(&'b [u8]),
    /// Further keys.
    Bucket(Bucket<'b>),
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("damaged: {what}"))
}

/// The `N` bytes from `at` on.
fn take<const N: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; N]> {
    at.checked_add(N)
        .and_then(|end| bytes.get(at..end)?.try_into().ok())
        .ok_or_else(|| damaged("it ends too early"))
}

fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    take(bytes, at).map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    take(bytes, at).map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> io::Result<u64> {
    take(bytes, at).map(u64::from_le_bytes)
}

/// A length or place in the file.
fn size_at(bytes: &[u8], at: usize) -> io::Result<usize> {
    usize::try_from(u32_at(bytes, at)?).map_err(io::Error::other)
}

fn part(bytes: &[u8], from: usize, length: usize) -> io::Result<&[u8]> {
    from.checked_add(length)
        .and_then(|end| bytes.get(from..end))
        .ok_or_else(|| damaged("an element is outside of its page"))
}

/// A meta page: page size, root and the number of its transaction; `None` for what is none.
fn meta(page: &[u8]) -> Option<(usize, u64, u64)> {
    let meta = page.get(PAGE_HEADER..PAGE_HEADER + 64)?;
    let is_known = u32_at(meta, 0).ok()? == MAGIC && u32_at(meta, 4).ok()? == VERSION;
    // FNV-1a of everything before it.
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for byte in &meta[..56] {
        sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let page_size = size_at(meta, 8).ok()?;
    let holds = is_known && u64_at(meta, 56).ok()? == sum && page_size >= 512;
    holds.then_some((page_size, u64_at(meta, 16).ok()?, u64_at(meta, 48).ok()?))
}

impl Bolt {
    /// Reads the file.
    ///
    /// # Errors
    /// Those of reading; `InvalidData` for what is no database.
    pub fn open(path: &Path) -> io::Result<Self> {
        if std::fs::metadata(path)?.len() > FILE_LIMIT {
            return Err(io::Error::other("longer than 1 GiB"));
        }
        Self::parse(std::fs::read(path)?)
    }

    fn parse(bytes: Vec<u8>) -> io::Result<Self> {
        // Where the second one is, the first one says; if that is damaged, it is tried out.
        let first = meta(&bytes);
        let sizes = first.map_or_else(|| (9..=16).map(|n| 1 << n).collect(), |m| vec![m.0]);
        let second = sizes.into_iter().find_map(|size| meta(bytes.get(size..)?));
        let newest = [first, second].into_iter().flatten().max_by_key(|m| m.2);
        let (page_size, root, _) = newest.ok_or_else(|| damaged("no valid meta page"))?;
        Ok(Self {
            bytes,
            page_size,
            root,
        })
    }

    /// The outermost bucket.
    pub fn root(&self) -> Bucket<'_> {
        Bucket {
            bolt: self,
            root: self.root,
            inline: &[],
        }
    }

    /// A page, with those that it goes on over.
    fn page(&self, number: u64) -> io::Result<&[u8]> {
        let start = usize::try_from(number)
            .ok()
            .and_then(|number| number.checked_mul(self.page_size))
            .filter(|start| *start < self.bytes.len())
            .ok_or_else(|| damaged("a page outside of the file"))?;
        let more = size_at(&self.bytes, start.saturating_add(12))?;
        let length = more.saturating_add(1).saturating_mul(self.page_size);
        let end = start.saturating_add(length).min(self.bytes.len());
        Ok(&self.bytes[start..end])
    }
}

impl<'b> Bucket<'b> {
    /// Everything in the bucket, in the order of the keys.
    ///
    /// # Errors
    /// `InvalidData` where the file is damaged.
    pub fn items(self) -> io::Result<Vec<(&'b [u8], Item<'b>)>> {
        let mut found = Vec::new();
        if self.root == 0 {
            self.collect(self.inline, 0, &mut found)?;
        } else {
            self.collect(self.bolt.page(self.root)?, 0, &mut found)?;
        }
        Ok(found)
    }

    fn collect(
        self,
        page: &'b [u8],
        depth: usize,
        found: &mut Vec<(&'b [u8], Item<'b>)>,
    ) -> io::Result<()> {
        if depth > DEPTH_LIMIT || found.len() > self.bolt.bytes.len() / ELEMENT {
            return Err(damaged("a tree without an end"));
        }
        let (kind, count) = (u16_at(page, 8)?, u16_at(page, 10)?);
        for index in 0..usize::from(count) {
            let at = PAGE_HEADER + index * ELEMENT;
            if kind & BRANCH != 0 {
                let below = self.bolt.page(u64_at(page, at + 8)?)?;
                self.collect(below, depth + 1, found)?;
            } else if kind & LEAF != 0 {
                let place = at.saturating_add(size_at(page, at + 4)?);
                let (key, value) = (size_at(page, at + 8)?, size_at(page, at + 12)?);
                let (name, value) = (
                    part(page, place, key)?,
                    part(page, place.saturating_add(key), value)?,
                );
                found.push((name, self.item(u32_at(page, at)?, value)?));
            } else {
                return Err(damaged("a page of another kind in a tree"));
            }
        }
        Ok(())
    }

    fn item(self, flags: u32, value: &'b [u8]) -> io::Result<Item<'b>> {
        if flags & IS_BUCKET == 0 {
            return Ok(Item::Value(value));
        }
        Ok(Item::Bucket(Bucket {
            bolt: self.bolt,
            root: u64_at(value, 0)?,
            inline: value.get(PAGE_HEADER..).unwrap_or_default(),
        }))
    }

    /// The buckets in the bucket, by name.
    ///
    /// # Errors
    /// As [`Bucket::items`].
    pub fn buckets(self) -> io::Result<Vec<(String, Bucket<'b>)>> {
        let items = self.items()?.into_iter();
        let buckets = items.filter_map(|(name, item)| match item {
            Item::Bucket(bucket) => Some((String::from_utf8_lossy(name).into_owned(), bucket)),
            Item::Value(_) => None,
        });
        Ok(buckets.collect())
    }

    /// The bucket `name` in the bucket, if there is one.
    ///
    /// # Errors
    /// As [`Bucket::items`].
    pub fn bucket(self, name: &str) -> io::Result<Option<Bucket<'b>>> {
        let mut buckets = self.buckets()?.into_iter();
        Ok(buckets
            .find(|(other, _)| other == name)
            .map(|(_, bucket)| bucket))
    }

    /// The values in the bucket, by key.
    ///
    /// # Errors
    /// As [`Bucket::items`].
    pub fn values(self) -> io::Result<Vec<(String, &'b [u8])>> {
        let items = self.items()?.into_iter();
        let values = items.filter_map(|(name, item)| match item {
            Item::Value(value) => Some((String::from_utf8_lossy(name).into_owned(), value)),
            Item::Bucket(_) => None,
        });
        Ok(values.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A database of three pages of 512 bytes: `a` has the value `b`, and `in` a bucket in which
    /// `c` has the value `d`.
    fn small() -> Vec<u8> {
        let mut bytes = vec![0; 3 * 512];
        let put = |bytes: &mut Vec<u8>, at: usize, part: &[u8]| {
            bytes[at..at + part.len()].copy_from_slice(part);
        };
        for (page, transaction) in [(0, 7_u64), (1, 6)] {
            let at = page * 512 + PAGE_HEADER;
            put(&mut bytes, at, &MAGIC.to_le_bytes());
            put(&mut bytes, at + 4, &VERSION.to_le_bytes());
            put(&mut bytes, at + 8, &512_u32.to_le_bytes());
            put(&mut bytes, at + 16, &2_u64.to_le_bytes());
            put(&mut bytes, at + 48, &transaction.to_le_bytes());
            let mut sum = 0xcbf2_9ce4_8422_2325_u64;
            for byte in &bytes[at..at + 56] {
                sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
            put(&mut bytes, at + 56, &sum.to_le_bytes());
        }
        let leaf = |elements: &[(u32, &[u8], &[u8])]| {
            let mut page = vec![0; PAGE_HEADER + elements.len() * ELEMENT];
            page[8] = 2;
            page[10] = u8::try_from(elements.len()).unwrap();
            for (index, (flags, key, value)) in elements.iter().enumerate() {
                let at = PAGE_HEADER + index * ELEMENT;
                let place = u32::try_from(page.len() - at).unwrap();
                let lengths = [key.len(), value.len()].map(|n| u32::try_from(n).unwrap());
                put(&mut page, at, &flags.to_le_bytes());
                put(&mut page, at + 4, &place.to_le_bytes());
                put(&mut page, at + 8, &lengths[0].to_le_bytes());
                put(&mut page, at + 12, &lengths[1].to_le_bytes());
                page.extend_from_slice(key);
                page.extend_from_slice(value);
            }
            page
        };
        let mut inner = vec![0; 16];
        inner.extend(leaf(&[(0, b"c", b"d")]));
        put(
            &mut bytes,
            1024,
            &leaf(&[(0, b"a", b"b"), (1, b"in", &inner)]),
        );
        bytes
    }

    fn walk(bucket: Bucket<'_>, depth: usize) -> io::Result<usize> {
        let mut count = 0;
        for (_, item) in bucket.items()? {
            count += match item {
                Item::Bucket(inner) if depth < 4 => walk(inner, depth + 1)?,
                _ => 1,
            };
        }
        Ok(count)
    }

    #[test]
    fn keys_and_buckets_are_read() {
        let bolt = Bolt::parse(small()).unwrap();
        let root = bolt.root();
        assert_eq!(root.values().unwrap(), [("a".to_owned(), &b"b"[..])]);
        let inner = root.bucket("in").unwrap().unwrap();
        assert_eq!(inner.values().unwrap(), [("c".to_owned(), &b"d"[..])]);
        assert!(root.bucket("none").unwrap().is_none());
        // Without the first meta page the second one counts.
        let mut bytes = small();
        bytes[PAGE_HEADER] = 0;
        assert_eq!(walk(Bolt::parse(bytes).unwrap().root(), 0).unwrap(), 2);
        Bolt::parse(vec![0; 4096]).unwrap_err();
        Bolt::parse(Vec::new()).unwrap_err();
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        /// A damaged file is read or refused, and neither takes for ever.
        #[test]
        fn no_file_is_too_broken(
            edits in proptest::collection::vec((1024..1536_usize, any::<u8>()), 1..8),
            end in 1024..1536_usize,
        ) {
            let mut bytes = small();
            for (at, byte) in edits {
                bytes[at] = byte;
            }
            bytes.truncate(end);
            let _ = walk(Bolt::parse(bytes).unwrap().root(), 0);
        }
    }
}
