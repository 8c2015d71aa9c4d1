//! The maps of sparse files: where the data that is stored belongs.

use ::tar::GnuSparseHeader;

use super::{BLOCK, Extent, Fault, HEADER_LIMIT, broken, number, pax};

/// What one extent costs of [`HEADER_LIMIT`].
const EXTENT: usize = 24;
/// So many are enough for a file that is read at all.
const EXTENTS: usize = HEADER_LIMIT / EXTENT;

fn too_many() -> Fault {
    broken("a sparse map of more than 1 MiB")
}

/// The map in headers of GNU.
#[derive(Debug, Default)]
pub(super) struct Map {
    pub(super) extents: Vec<Extent>,
}

impl Map {
    /// Adds the part of it that is in a header.
    pub(super) fn add_gnu(&mut self, part: &[GnuSparseHeader]) -> Result<(), Fault> {
        for one in part {
            self.add(&one.offset, &one.numbytes)?;
        }
        Ok(())
    }

    /// Adds a block of it; answers whether another follows.
    pub(super) fn add_gnu_block(&mut self, block: &[u8; BLOCK]) -> Result<bool, Fault> {
        for one in block[..21 * EXTENT].chunks_exact(EXTENT) {
            self.add(&one[..12], &one[12..])?;
        }
        Ok(block[21 * EXTENT] == 1)
    }

    fn add(&mut self, offset: &[u8], length: &[u8]) -> Result<(), Fault> {
        if offset.first() == Some(&0) || length.first() == Some(&0) {
            return Ok(());
        }
        let parse = |field| {
            number::parse(field)
                .and_then(|value| u64::try_from(value).ok())
                .ok_or_else(|| broken("a malformed sparse map"))
        };
        let extent = Extent {
            offset: parse(offset)?,
            length: parse(length)?,
        };
        if self.extents.len() == EXTENTS {
            return Err(too_many());
        }
        self.extents.push(extent);
        Ok(())
    }
}

/// The map of PAX 1.0: decimal numbers, one a line, how many there are first.
#[derive(Debug, Default)]
pub(super) struct Lines {
    numbers: Vec<u64>,
    line: Vec<u8>,
}

impl Lines {
    /// Whether all numbers are there that the first one promises.
    pub(super) fn is_complete(&self) -> bool {
        self.numbers
            .first()
            .is_some_and(|count| (self.numbers.len() as u64 - 1) / 2 >= *count)
    }

    /// Adds a block of it.
    pub(super) fn add(&mut self, block: &[u8]) -> Result<(), Fault> {
        for byte in block {
            if self.is_complete() {
                break;
            }
            if *byte != b'\n' {
                self.line.push(*byte);
                continue;
            }
            let number =
                pax::decimal(&self.line).ok_or_else(|| broken("a malformed sparse map"))?;
            if self.numbers.is_empty() && number > EXTENTS as u64 {
                return Err(too_many());
            }
            self.line.clear();
            self.numbers.push(number);
        }
        if self.line.len() > 20 {
            return Err(broken("a malformed sparse map"));
        }
        Ok(())
    }

    pub(super) fn extents(&self) -> Result<Vec<Extent>, Fault> {
        pairs(self.numbers.get(1..).unwrap_or_default())
    }
}

/// Extents from offsets and lengths by turns.
pub(super) fn pairs(numbers: &[u64]) -> Result<Vec<Extent>, Fault> {
    if !numbers.len().is_multiple_of(2) {
        return Err(broken("a sparse map with an odd number of numbers"));
    }
    let pairs = numbers.chunks_exact(2);
    Ok(pairs
        .map(|pair| Extent {
            offset: pair[0],
            length: pair[1],
        })
        .collect())
}

/// Checks that extents follow one another within the file and have exactly the data stored.
pub(super) fn check(extents: &[Extent], size: u64, stored: u64) -> Result<(), &'static str> {
    if i64::try_from(size).is_err() {
        return Err("a sparse file of an impossible size");
    }
    let (mut end, mut total) = (0_u64, 0_u64);
    for extent in extents {
        let next = extent.offset.checked_add(extent.length);
        match next {
            Some(next) if extent.offset >= end && next <= size => end = next,
            _ => return Err("a sparse map that leaves the file or goes backwards"),
        }
        total += extent.length;
    }
    if total != stored {
        return Err("a sparse map that does not fit the data");
    }
    Ok(())
}
