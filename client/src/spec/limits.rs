//! Limits of a container: what the command line says, and the cgroup values that mean it.

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxDeviceCgroupBuilder, LinuxMemoryBuilder, LinuxPidsBuilder,
    LinuxResources, LinuxResourcesBuilder,
};

/// Length of a scheduling period, in microseconds.
const PERIOD: u64 = 100_000;

/// Processor time per period, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cpus(i64);

/// Reads a number of processors, such as `0.5`.
///
/// # Errors
/// A text that says what is wanted.
pub(crate) fn parse_cpus(text: &str) -> Result<Cpus, String> {
    const WANTED: &str = "a number of processors such as 0.5, at least 0.01";
    let number: f64 = text.parse().map_err(|_| WANTED.to_owned())?;
    // The kernel refuses quotas below a millisecond.
    if !(0.01..=10_000.0).contains(&number) {
        return Err(WANTED.to_owned());
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "at most 10,000 periods of a tenth of a second"
    )]
    Ok(Cpus((number * 100_000.0).round() as i64))
}

/// Reads a number of bytes, with `k`, `m`, `g` or `t` for powers of 1024.
///
/// # Errors
/// A text that says what is wanted.
pub(crate) fn parse_bytes(text: &str) -> Result<i64, String> {
    let wanted = || "a number of bytes such as 64m (k, m, g and t are powers of 1024)".to_owned();
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b'));
    let bare = bare.unwrap_or(&lower);
    let (digits, shift) = match bare.char_indices().last() {
        Some((end, 'k')) => (&bare[..end], 10),
        Some((end, 'm')) => (&bare[..end], 20),
        Some((end, 'g')) => (&bare[..end], 30),
        Some((end, 't')) => (&bare[..end], 40),
        _ => (bare, 0),
    };
    let number: i64 = digits.parse().map_err(|_| wanted())?;
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes > 0)
        .ok_or_else(wanted)
}

/// The values; devices are denied but those that every runtime allows.
pub(super) fn resources(
    memory: Option<i64>,
    cpus: Option<Cpus>,
    pids: Option<i64>,
) -> Result<LinuxResources, OciSpecError> {
    let deny = LinuxDeviceCgroupBuilder::default()
        .allow(false)
        .access("rwm")
        .build()?;
    let mut resources = LinuxResourcesBuilder::default().devices([deny]).build()?;
    if let Some(limit) = memory {
        let memory = LinuxMemoryBuilder::default().limit(limit).build()?;
        resources.set_memory(Some(memory));
    }
    if let Some(Cpus(quota)) = cpus {
        let cpu = LinuxCpuBuilder::default().quota(quota).period(PERIOD);
        resources.set_cpu(Some(cpu.build()?));
    }
    if let Some(limit) = pids {
        resources.set_pids(Some(LinuxPidsBuilder::default().limit(limit).build()?));
    }
    Ok(resources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("1", 1),
            ("64m", 64 << 20),
            ("2GiB", 2 << 30),
            ("3kb", 3072),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "0", "-1", "1.5g", "99999999t", "9ü", "b"] {
            parse_bytes(text).unwrap_err();
        }
    }

    #[test]
    fn processors_are_read() {
        assert_eq!(parse_cpus("0.5"), Ok(Cpus(50_000)));
        assert_eq!(parse_cpus("2"), Ok(Cpus(200_000)));
        for text in ["", "0", "-1", "nan", "inf", "0.001", "1e9"] {
            parse_cpus(text).unwrap_err();
        }
    }
}
