//! The cgroup path that `linux.cgroupsPath` means under the systemd driver: `SLICE:PREFIX:NAME`
//! instead of a path (runc's `docs/systemd.md`).

/// Where runc puts a container whose spec names no slice.
const DEFAULT_SLICE: &str = "system.slice";

/// Expands `SLICE:PREFIX:NAME` to the path of the unit's cgroup. `None` when it has another form. A
/// name that is a slice itself stands for itself; any other becomes the scope `PREFIX-NAME.scope`.
pub(super) fn path(cgroups_path: &str) -> Option<String> {
    let mut parts = cgroups_path.split(':');
    let (slice, prefix, name) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some()
        || name.is_empty()
        || [slice, prefix, name].iter().any(|part| part.contains('/'))
    {
        return None;
    }
    let slice = if slice.is_empty() {
        DEFAULT_SLICE
    } else {
        slice
    };
    let unit = if name.ends_with(".slice") {
        name.to_owned()
    } else if prefix.is_empty() {
        format!("{name}.scope")
    } else {
        format!("{prefix}-{name}.scope")
    };
    Some(format!("{}/{unit}", slice_path(slice)?))
}

/// A slice's name says where it lies (systemd.slice(5)): `a-b.slice` is `/a.slice/a-b.slice`, and
/// `-.slice` is the root.
fn slice_path(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(String::new());
    }
    if name.is_empty() || name.split('-').any(str::is_empty) {
        return None;
    }
    let dashes = name
        .match_indices('-')
        .map(|(at, _)| at)
        .chain([name.len()]);
    Some(
        dashes
            .map(|end| format!("/{}.slice", &name[..end]))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_slices() {
        let cases = [
            (
                "system.slice:docker:abc",
                Some("/system.slice/docker-abc.scope"),
            ),
            (
                ":cri-containerd:abc",
                Some("/system.slice/cri-containerd-abc.scope"),
            ),
            (
                "a-b-c.slice::x",
                Some("/a.slice/a-b.slice/a-b-c.slice/x.scope"),
            ),
            ("-.slice:p:x", Some("/p-x.scope")),
            ("k.slice:p:k-pod.slice", Some("/k.slice/k-pod.slice")),
            ("/default/c", None),
            ("a:b", None),
            ("a.slice:b:c:d", None),
            ("a.slice:b:", None),
            ("noslice:b:c", None),
            ("a--b.slice:b:c", None),
            ("a.slice:../b:c", None),
        ];
        for (given, expected) in cases {
            assert_eq!(path(given).as_deref(), expected, "{given}");
        }
    }
}
