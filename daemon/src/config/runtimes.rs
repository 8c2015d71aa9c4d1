//! The runtimes that the file names for the kubelet: kept as what a shim needs to know, whichever
//! generation of the file they are from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use core_api::Any;
use protobuf::Message;
use task_api::options::{GENERIC_OPTIONS, Options, RUNC_OPTIONS};
use toml::{Table, Value};

use crate::shim::resolve::{DEFAULT_RUNTIME, LEGACY_LINUX};

/// The options that the runc shims have had in any version.
const RUNC_KEYS: [&str; 13] = [
    "BinaryName",
    "CriuImagePath",
    "CriuPath",
    "CriuWorkPath",
    "IoGid",
    "IoUid",
    "NoNewKeyring",
    "NoPivotRoot",
    "Root",
    "ShimCgroup",
    "SystemdCgroup",
    "TaskApiAddress",
    "TaskApiVersion",
];

/// One runtime under its name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Runtime {
    /// Its shim: `io.containerd.runc.v2`.
    pub runtime_type: String,
    /// The shim's binary, where it is not the one that the type names; else empty.
    pub runtime_path: PathBuf,
    /// The shim's options as the file has them.
    pub options: Table,
    /// The OCI runtime's name, as files before containerd 1.3 have it.
    pub(super) runtime_engine: String,
    /// The folder of the OCI runtime's state, likewise.
    pub(super) runtime_root: String,
}

/// What the file says of runtimes.
#[derive(Debug, Clone, PartialEq)]
pub struct Runtimes {
    /// The name of the one that is taken where none is asked for.
    pub default_runtime: String,
    /// All of them, by name.
    pub named: BTreeMap<String, Runtime>,
    pub(super) systemd_cgroup: bool,
    pub(super) no_pivot: bool,
}

impl Default for Runtimes {
    fn default() -> Self {
        let runc = Runtime {
            runtime_type: DEFAULT_RUNTIME.to_owned(),
            ..Runtime::default()
        };
        Self {
            default_runtime: "runc".to_owned(),
            named: BTreeMap::from([("runc".to_owned(), runc)]),
            systemd_cgroup: false,
            no_pivot: false,
        }
    }
}

impl Runtimes {
    pub(super) fn runtime(&mut self, name: &str) -> &mut Runtime {
        self.named.entry(name.to_owned()).or_default()
    }

    /// Brings everything to the words of the runc shims, after the last key was read: the runtime
    /// of containerd 1.0 to 1.4 becomes the runc shim, and what was said beside a runtime, or for
    /// all of them, becomes its options. `linux` is what `plugins.linux` says: the name of the OCI
    /// runtime and its folder.
    pub(super) fn settle(&mut self, linux: (&str, &str)) {
        let was_default = self.named.get("default");
        if was_default.is_some_and(|runtime| !runtime.runtime_type.is_empty())
            && self.default_runtime == "runc"
        {
            "default".clone_into(&mut self.default_runtime);
        }
        self.named
            .retain(|_, runtime| !runtime.runtime_type.is_empty());
        for runtime in self.named.values_mut() {
            let mut implied = Vec::new();
            if runtime.runtime_type == LEGACY_LINUX {
                DEFAULT_RUNTIME.clone_into(&mut runtime.runtime_type);
                implied.extend([("BinaryName", linux.0), ("Root", linux.1)]);
            }
            let own = [
                ("BinaryName", std::mem::take(&mut runtime.runtime_engine)),
                ("Root", std::mem::take(&mut runtime.runtime_root)),
            ];
            if !runtime.is_runc() {
                continue;
            }
            let own = own.iter().map(|(key, value)| (*key, value.as_str()));
            for (key, value) in own.chain(implied).filter(|(_, value)| !value.is_empty()) {
                runtime.imply(key, Value::String(value.to_owned()));
            }
            for (key, holds) in [
                ("SystemdCgroup", self.systemd_cgroup),
                ("NoPivotRoot", self.no_pivot),
            ] {
                if holds {
                    runtime.imply(key, Value::Boolean(true));
                }
            }
        }
        self.systemd_cgroup = false;
        self.no_pivot = false;
    }
}

impl Runtime {
    fn is_runc(&self) -> bool {
        ["io.containerd.runc.v1", "io.containerd.runc.v2"].contains(&self.runtime_type.as_str())
    }

    /// The options that its shim does not have, as far as that is known.
    pub(super) fn unknown_options(&self) -> Vec<&str> {
        let is_unknown = |key: &&str| self.is_runc() && !RUNC_KEYS.contains(key);
        self.options
            .keys()
            .map(String::as_str)
            .filter(is_unknown)
            .collect()
    }

    fn imply(&mut self, key: &str, value: Value) {
        self.options.entry(key).or_insert(value);
    }

    /// The options as the shim takes them: those of runc in its own message, those of any other
    /// shim as TOML in the generic one. `None` where there are none.
    ///
    /// # Errors
    /// The option of runc that has the wrong kind of value.
    pub fn shim_options(&self) -> Result<Option<Any>, String> {
        if self.options.is_empty() {
            return Ok(None);
        }
        let (type_url, value) = if self.is_runc() {
            let options = runc_options(&self.options)?;
            let value = options
                .write_to_bytes()
                .map_err(|error| error.to_string())?;
            (RUNC_OPTIONS, value)
        } else {
            (GENERIC_OPTIONS, generic_options(&self.options)?)
        };
        Ok(Some(Any {
            type_url: type_url.to_owned(),
            value,
        }))
    }
}

/// `runtimeoptions.v1.Options`.
#[derive(Clone, PartialEq, prost::Message)]
struct GenericOptions {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    config_path: String,
    #[prost(bytes = "vec", tag = "3")]
    config_body: Vec<u8>,
}

fn generic_options(table: &Table) -> Result<Vec<u8>, String> {
    let text = |key: &str| table.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut options = GenericOptions {
        type_url: text("TypeUrl").to_owned(),
        config_path: text("ConfigPath").to_owned(),
        config_body: Vec::new(),
    };
    // A file that the shim reads itself; otherwise the options are the file.
    if options.config_path.is_empty() {
        let body = toml::to_string(table).map_err(|error| error.to_string())?;
        options.config_body = body.into_bytes();
    }
    Ok(prost::Message::encode_to_vec(&options))
}

fn runc_options(table: &Table) -> Result<Options, String> {
    let mut options = Options::new();
    for (key, value) in table {
        let wrong = |kind: &str| format!("{key}: must be {kind}");
        let text = || {
            value
                .as_str()
                .map(str::to_owned)
                .ok_or_else(|| wrong("a text"))
        };
        let flag = || value.as_bool().ok_or_else(|| wrong("true or false"));
        let number = || {
            let number = value
                .as_integer()
                .and_then(|value| u32::try_from(value).ok());
            number.ok_or_else(|| wrong("a number from 0 on"))
        };
        match key.as_str() {
            "NoPivotRoot" => options.no_pivot_root = flag()?,
            "NoNewKeyring" => options.no_new_keyring = flag()?,
            "ShimCgroup" => options.shim_cgroup = text()?,
            "IoUid" => options.io_uid = number()?,
            "IoGid" => options.io_gid = number()?,
            "BinaryName" => options.binary_name = text()?,
            "Root" => options.root = text()?,
            "SystemdCgroup" => options.systemd_cgroup = flag()?,
            "CriuImagePath" => options.criu_image_path = text()?,
            "CriuWorkPath" => options.criu_work_path = text()?,
            // Not for the shim; `unknown_options` says so of those that nobody takes.
            _ => {}
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(change: impl FnOnce(&mut Runtimes)) -> Runtimes {
        let mut runtimes = Runtimes::default();
        change(&mut runtimes);
        runtimes.settle(("crun", "/r"));
        runtimes
    }

    #[test]
    fn the_legacy_runtime_becomes_the_runc_shim() {
        let runtimes = settled(|all| {
            all.systemd_cgroup = true;
            all.runtime("default").runtime_type = LEGACY_LINUX.to_owned();
            all.runtime("untrusted").runtime_engine = "nobody asks".to_owned();
        });
        assert_eq!(runtimes.default_runtime, "default");
        let names: Vec<&String> = runtimes.named.keys().collect();
        assert_eq!(names, ["default", "runc"]);
        let default = &runtimes.named["default"];
        assert_eq!(default.runtime_type, DEFAULT_RUNTIME);
        let any = default.shim_options().unwrap().unwrap();
        assert_eq!(any.type_url, RUNC_OPTIONS);
        let options = Options::parse_from_bytes(&any.value).unwrap();
        assert_eq!(
            (options.binary_name.as_str(), options.root.as_str()),
            ("crun", "/r")
        );
        assert!(options.systemd_cgroup);
    }

    #[test]
    fn what_a_runtime_says_itself_counts() {
        let runtimes = settled(|all| {
            let runtime = all.runtime("x");
            runtime.runtime_type = LEGACY_LINUX.to_owned();
            runtime.runtime_engine = "kata".to_owned();
            runtime
                .options
                .insert("Root".into(), Value::String("/own".into()));
        });
        let options = &runtimes.named["x"].options;
        assert_eq!(options["BinaryName"].as_str(), Some("kata"));
        assert_eq!(options["Root"].as_str(), Some("/own"));
        assert_eq!(runtimes.default_runtime, "runc");
    }

    #[test]
    fn options_of_other_shims_are_handed_over_as_toml() {
        let runtimes = settled(|all| {
            let runtime = all.runtime("other");
            runtime.runtime_type = "io.containerd.other.v1".to_owned();
            runtime.options.insert("Deep".into(), Value::Integer(5));
        });
        let any = runtimes.named["other"].shim_options().unwrap().unwrap();
        assert_eq!(any.type_url, GENERIC_OPTIONS);
        let options = <GenericOptions as prost::Message>::decode(any.value.as_slice()).unwrap();
        assert_eq!(options.config_body, b"Deep = 5\n");
        assert_eq!(runtimes.named["runc"].shim_options(), Ok(None));
        let mut wrong = Runtime {
            runtime_type: DEFAULT_RUNTIME.to_owned(),
            ..Runtime::default()
        };
        wrong
            .options
            .insert("BinaryName".into(), Value::Boolean(true));
        wrong.shim_options().unwrap_err();
    }
}
