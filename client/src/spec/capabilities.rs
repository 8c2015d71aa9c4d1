//! Capabilities of a container's processes.

use std::str::FromStr;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities, LinuxCapabilitiesBuilder};

use crate::error::{Error, Result};

/// What containerd gives to every container.
const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// The defaults without `drop` (all, with `ALL`) and with `add`.
///
/// # Errors
/// A name that is no capability.
pub(super) fn chosen(add: &[String], drop: &[String]) -> Result<LinuxCapabilities> {
    let mut set: Capabilities = DEFAULT.into();
    for name in drop {
        if name.eq_ignore_ascii_case("all") {
            set.clear();
        } else {
            set.remove(&parse(name)?);
        }
    }
    for name in add {
        set.insert(parse(name)?);
    }
    let built = LinuxCapabilitiesBuilder::default()
        .bounding(set.clone())
        .effective(set.clone())
        .permitted(set)
        .build();
    let mut built = built.map_err(|error| Error::said(format!("capabilities: {error}")))?;
    // The builder would fill these in: a program must not inherit what it was not given.
    built.set_inheritable(None).set_ambient(None);
    Ok(built)
}

fn parse(name: &str) -> Result<Capability> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    Capability::from_str(bare)
        .map_err(|_| Error::said(format!("{name}: no such capability (NET_ADMIN is one)")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_added_and_dropped_by_any_of_their_names() {
        let names = |add: &[&str], drop: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
            let (add, drop): (Vec<_>, Vec<_>) = (owned(add), owned(drop));
            chosen(&add, &drop).map(|chosen| chosen.bounding().clone().unwrap())
        };
        let only = names(&["cap_net_admin"], &["ALL"]).unwrap();
        assert_eq!(only, Capabilities::from([Capability::NetAdmin]));
        assert_eq!(names(&["KILL"], &["MKNOD"]).unwrap().len(), 13);
        names(&["NOTHING"], &[]).unwrap_err();
    }
}
