//! The line format of the rdma controller, which is the same in v1 and v2.

/// One device's counters.
pub(super) struct Counted<'a> {
    /// The device's name, such as `mlx4_0`.
    pub(super) device: &'a str,
    /// Host channel adapter handles.
    pub(super) handles: u32,
    /// Host channel adapter objects.
    pub(super) objects: u32,
}

/// Reads `DEVICE hca_handle=N hca_object=N`, where N may be `max`; a missing or odd counter is 0.
pub(super) fn parse(line: &str) -> Option<Counted<'_>> {
    let mut words = line.split_ascii_whitespace();
    let mut counted = Counted {
        device: words.next()?,
        handles: 0,
        objects: 0,
    };
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            continue;
        };
        let value = if value == super::files::NO_LIMIT {
            u32::MAX
        } else {
            value.parse().unwrap_or(0)
        };
        match key {
            "hca_handle" => counted.handles = value,
            "hca_object" => counted.objects = value,
            _ => {}
        }
    }
    Some(counted)
}
