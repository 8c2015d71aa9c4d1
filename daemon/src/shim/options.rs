//! The options that a shim is given: those of the request, else those of the container; and those
//! of the runtime of containerd 1.0 to 1.4, `io.containerd.runtime.v1.linux`, in the words of the
//! runc shim that replaces it.

use core_api::Any;
use prost::Message;
use task_api::options::{self, RUNC_OPTIONS, type_name};

use super::resolve::LEGACY_LINUX;

/// The OCI runtime of legacy containers whose options name none: what the configuration says.
#[derive(Debug, Clone, Default)]
pub struct Legacy {
    /// Name or path of the runtime; empty for the shim's own choice.
    pub runtime: String,
    /// The folder of its state; empty for the shim's own choice.
    pub root: String,
}

/// `containerd.linux.runc.RuncOptions`: what a legacy container says of its runtime.
#[derive(Clone, PartialEq, Message)]
struct RuncOptions {
    #[prost(string, tag = "1")]
    runtime: String,
    #[prost(string, tag = "2")]
    runtime_root: String,
    #[prost(bool, tag = "4")]
    systemd_cgroup: bool,
}

/// `containerd.linux.runc.CreateOptions`: what a client of a legacy container says at Create.
#[derive(Clone, PartialEq, Message)]
struct CreateOptions {
    #[prost(bool, tag = "1")]
    no_pivot_root: bool,
    #[prost(bool, tag = "8")]
    no_new_keyring: bool,
    #[prost(string, tag = "9")]
    shim_cgroup: String,
    #[prost(uint32, tag = "10")]
    io_uid: u32,
    #[prost(uint32, tag = "11")]
    io_gid: u32,
    #[prost(string, tag = "12")]
    criu_work_path: String,
    #[prost(string, tag = "13")]
    criu_image_path: String,
}

/// The options for the shim of `runtime`. Those of a current runtime pass byte for byte.
///
/// # Errors
/// A text for legacy options that cannot be decoded.
pub fn for_shim(
    runtime: &str,
    of_container: Option<Any>,
    of_request: Option<Any>,
    legacy: &Legacy,
) -> Result<Option<Any>, String> {
    let of_request = of_request.filter(|options| !options.value.is_empty());
    if runtime != LEGACY_LINUX {
        return Ok(of_request.or(of_container));
    }
    let told = |error: prost::DecodeError| format!("options of {LEGACY_LINUX}: {error}");
    let mut runc = RuncOptions::default();
    let mut create = CreateOptions::default();
    for any in [of_container, of_request].into_iter().flatten() {
        match type_name(&any.type_url) {
            "containerd.linux.runc.RuncOptions" => {
                runc = RuncOptions::decode(any.value.as_slice()).map_err(told)?;
            }
            "containerd.linux.runc.CreateOptions" => {
                create = CreateOptions::decode(any.value.as_slice()).map_err(told)?;
            }
            // Somebody who already speaks to the runc shim.
            _ => return Ok(Some(any)),
        }
    }
    let or = |own: String, other: &str| {
        if own.is_empty() {
            other.to_owned()
        } else {
            own
        }
    };
    let options = options::Options {
        binary_name: or(runc.runtime, &legacy.runtime),
        root: or(runc.runtime_root, &legacy.root),
        systemd_cgroup: runc.systemd_cgroup,
        no_pivot_root: create.no_pivot_root,
        no_new_keyring: create.no_new_keyring,
        shim_cgroup: create.shim_cgroup,
        io_uid: create.io_uid,
        io_gid: create.io_gid,
        criu_work_path: create.criu_work_path,
        criu_image_path: create.criu_image_path,
        ..options::Options::default()
    };
    let value = protobuf::Message::write_to_bytes(&options).map_err(|error| error.to_string())?;
    Ok((!value.is_empty()).then(|| Any {
        type_url: RUNC_OPTIONS.to_owned(),
        value,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use protobuf::Message as _;

    fn any(name: &str, value: Vec<u8>) -> Option<Any> {
        Some(Any {
            type_url: name.to_owned(),
            value,
        })
    }

    #[test]
    fn options_of_current_runtimes_pass_as_they_are() {
        let legacy = Legacy::default();
        let (own, asked) = (any("a", vec![1]), any("b", vec![2]));
        let given = |asked| for_shim("io.containerd.runc.v2", own.clone(), asked, &legacy);
        assert_eq!(given(asked.clone()).unwrap(), asked);
        assert_eq!(given(any("b", vec![])).unwrap(), own);
    }

    #[test]
    fn legacy_options_become_those_of_the_runc_shim() {
        let legacy = Legacy {
            runtime: "crun".into(),
            root: "/r".into(),
        };
        let of = |own, asked| {
            let given = for_shim(LEGACY_LINUX, own, asked, &legacy)
                .unwrap()
                .unwrap();
            assert_eq!(given.type_url, RUNC_OPTIONS);
            options::Options::parse_from_bytes(&given.value).unwrap()
        };
        let options = of(None, None);
        assert_eq!(
            (options.binary_name.as_str(), options.root.as_str()),
            ("crun", "/r")
        );
        let runc = RuncOptions {
            runtime: "runc".into(),
            ..Default::default()
        }
        .encode_to_vec();
        let create = CreateOptions {
            io_uid: 5,
            ..Default::default()
        }
        .encode_to_vec();
        let options = of(
            any("containerd.linux.runc.RuncOptions", runc),
            any("containerd.linux.runc.CreateOptions", create),
        );
        assert_eq!((options.binary_name.as_str(), options.io_uid), ("runc", 5));
        let broken = any("containerd.linux.runc.RuncOptions", vec![0xff]);
        for_shim(LEGACY_LINUX, broken, None, &legacy).unwrap_err();
        let nothing = for_shim(LEGACY_LINUX, None, None, &Legacy::default()).unwrap();
        assert_eq!(nothing, None);
    }
}
