//! Names nobody has.

use std::fs::File;
use std::io::Read;

use crate::error::{Context, Result};

const SOURCE: &str = "/dev/urandom";

/// Twelve random hexadecimal digits.
///
/// # Errors
/// The system's.
pub(crate) fn id() -> Result<String> {
    let mut bytes = [0; 6];
    let mut file = File::open(SOURCE).about(SOURCE)?;
    file.read_exact(&mut bytes).about(SOURCE)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
