//! The answer of `ps --format json`: a JSON list of pids.

use std::fmt;

/// The most pids taken from one answer; the kernel cannot have more processes (PID_MAX_LIMIT).
const MOST: usize = 4 * 1024 * 1024;

/// Text that is no list of pids.
#[derive(Debug)]
pub struct PsError(String);

impl fmt::Display for PsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the runtime's list of processes is no JSON list of pids: {}",
            self.0
        )
    }
}

impl std::error::Error for PsError {}

/// Reads the pids. runc says `null` for a container without processes, and nothing at all is taken
/// likewise: containerd counts a shim whose Pids fails as leaked and kills it (shim-contract 1.10).
///
/// # Errors
/// Text that is neither a list of positive numbers, nor `null`, nor empty.
pub fn parse(output: &[u8]) -> Result<Vec<i32>, PsError> {
    if output.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    let pids: Option<Vec<i32>> =
        serde_json::from_slice(output).map_err(|e| PsError(e.to_string()))?;
    let pids = pids.unwrap_or_default();
    match pids.iter().find(|pid| **pid <= 0) {
        Some(pid) => Err(PsError(format!("{pid} is no pid"))),
        None if pids.len() > MOST => Err(PsError(format!("{} entries", pids.len()))),
        None => Ok(pids),
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn captured_answers() {
        assert_eq!(parse(b"[7902]\n").unwrap(), [7902]); // runc 1.1.5
        assert_eq!(parse(b"[\n  9411\n]\n").unwrap(), [9411]); // crun 1.8.1
        assert!(parse(b"null\n").unwrap().is_empty()); // runc 1.1.5, stopped container
        assert!(parse(b"").unwrap().is_empty());
        assert!(parse(b"boom").is_err());
        assert!(parse(b"[0]").is_err());
        assert!(parse(b"[\"1\"]").is_err());
    }
}
