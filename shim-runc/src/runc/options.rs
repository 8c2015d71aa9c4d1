//! The runtime options of a Create or Checkpoint request: from whatever message the client packed
//! into the request's `Any` to one plain structure.
//!
//! Three encodings reach a runc shim (shim-contract section 2): `containerd.runc.v1.Options` as
//! protobuf, the same type with a JSON value (typeurl's form for non-protobuf types), and
//! `runtimeoptions.v1.Options` with a TOML body, which CRI sends for every runtime name it does
//! not know (issue 2). Any other type is refused: taking its defaults would lose settings silently.

use std::fmt;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use containerd_shim_protos::shim::oci;
use protobuf::{CodedInputStream, Message, UnknownValueRef};
use serde::{Deserialize, Serialize};

/// Type name of the runc options.
pub const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";
/// Type name of the options of a checkpoint.
pub const CHECKPOINT_OPTIONS: &str = "containerd.runc.v1.CheckpointOptions";
/// Type name CRI uses for runtimes it has no options type for; older CRI plugins prefix `cri.`.
pub const GENERIC_OPTIONS: &str = "runtimeoptions.v1.Options";

/// The longest configuration file read for `config_path`, in bytes.
const CONFIG_FILE_LIMIT: u64 = 64 * 1024;

/// Options of a runc container, in the form of the bundle's `options.json`: snake case, empty
/// fields left out, so that Go's shims read what ours wrote and the other way round.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "snake_case")]
pub struct RuncOptions {
    /// Do not pivot the root, for bundles on a ramdisk.
    #[serde(skip_serializing_if = "is_default")]
    pub no_pivot_root: bool,
    /// Let the container join the caller's session keyring.
    #[serde(skip_serializing_if = "is_default")]
    pub no_new_keyring: bool,
    /// Cgroup to move the shim into.
    #[serde(skip_serializing_if = "is_default")]
    pub shim_cgroup: String,
    /// Owner of the container's stdio pipes.
    #[serde(skip_serializing_if = "is_default")]
    pub io_uid: u32,
    /// Group of the container's stdio pipes.
    #[serde(skip_serializing_if = "is_default")]
    pub io_gid: u32,
    /// Runtime binary, a name looked up in PATH or a path; empty means `runc`.
    #[serde(skip_serializing_if = "is_default")]
    pub binary_name: String,
    /// Root of the runtime's state; empty means `/run/containerd/runc`. The namespace is appended.
    #[serde(skip_serializing_if = "is_default")]
    pub root: String,
    /// Path of the criu binary (containerd 1.x only).
    #[serde(skip_serializing_if = "is_default")]
    pub criu_path: String,
    /// Let systemd manage the cgroups.
    #[serde(skip_serializing_if = "is_default")]
    pub systemd_cgroup: bool,
    /// Checkpoint image path; only daemons use it.
    #[serde(skip_serializing_if = "is_default")]
    pub criu_image_path: String,
    /// Working directory of a restore; empty means `<bundle>/work`.
    #[serde(skip_serializing_if = "is_default")]
    pub criu_work_path: String,
    /// Address of a task API served elsewhere; only daemons use it.
    #[serde(skip_serializing_if = "is_default")]
    pub task_api_address: String,
    /// Version of that API; only daemons use it.
    #[serde(skip_serializing_if = "is_default")]
    pub task_api_version: u32,
}

/// Options of a Checkpoint request that the runtime's command line has flags for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "snake_case")]
pub struct CheckpointOptions {
    /// Stop the container once it is written.
    pub exit: bool,
    /// Write established TCP connections too.
    pub open_tcp: bool,
    /// Write unix sockets whose peer is outside.
    pub external_unix_sockets: bool,
    /// Write terminals.
    pub terminal: bool,
    /// Write file locks.
    pub file_locks: bool,
    /// Namespaces to restore empty.
    pub empty_namespaces: Vec<String>,
    /// Where criu keeps its logs; empty means the shim's own work directory.
    pub work_path: String,
}

/// What the request's options hold: the options themselves, or the file that does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The options were in the message.
    Inline(Box<RuncOptions>),
    /// They are in this file, to be read by [`read_file`] where reading may block.
    File(PathBuf),
}

/// Why options were refused; every case maps to `InvalidArgument`.
#[derive(Debug)]
pub enum OptionsError {
    /// The `Any` holds a type that is no runc options.
    ForeignType(String),
    /// The value does not decode as its type says.
    Malformed {
        /// The type URL of the request.
        type_url: String,
        /// What the decoder said.
        reason: String,
    },
    /// The file named by `config_path` could not be used.
    File(PathBuf, String),
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ForeignType(url) => write!(
                f,
                "runtime options of type {url:?} are not for a runc shim, which takes \
                 {RUNC_OPTIONS} or {GENERIC_OPTIONS}"
            ),
            Self::Malformed { type_url, reason } => {
                write!(
                    f,
                    "malformed runtime options of type {type_url:?}: {reason}"
                )
            }
            Self::File(path, reason) => {
                write!(f, "runtime options file {}: {reason}", path.display())
            }
        }
    }
}

impl std::error::Error for OptionsError {}

/// Reads the options of a Create request from the fields of its `Any`. An empty type URL means
/// that the client sent none: the defaults.
///
/// # Errors
/// A foreign type and a value that does not decode, both naming the type URL.
pub fn decode(type_url: &str, value: &[u8]) -> Result<Source, OptionsError> {
    let inline = |options| Ok(Source::Inline(Box::new(options)));
    match type_name(type_url) {
        "" if value.is_empty() => inline(RuncOptions::default()),
        RUNC_OPTIONS if is_json(value) => inline(from_json(type_url, value)?),
        RUNC_OPTIONS => inline(from_protobuf(type_url, value)?),
        name if name.strip_prefix("cri.").unwrap_or(name) == GENERIC_OPTIONS => {
            generic(type_url, value)
        }
        _ => Err(OptionsError::ForeignType(type_url.to_owned())),
    }
}

/// [`decode`], and the file read too if there is one. For callers that may block.
///
/// # Errors
/// As [`decode`] and [`read_file`].
pub fn load(type_url: &str, value: &[u8]) -> Result<RuncOptions, OptionsError> {
    match decode(type_url, value)? {
        Source::Inline(options) => Ok(*options),
        Source::File(path) => read_file(&path),
    }
}

/// Reads the TOML file that `config_path` named; at most 64 KiB, and only a regular file at an
/// absolute path.
///
/// # Errors
/// A file that cannot be read or parsed, naming the path.
pub fn read_file(path: &Path) -> Result<RuncOptions, OptionsError> {
    let refuse = |reason: String| OptionsError::File(path.to_owned(), reason);
    if !path.is_absolute() {
        return Err(refuse("not an absolute path".to_owned()));
    }
    // Nonblocking, so that a FIFO at this path cannot hold the opener.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|e| refuse(e.to_string()))?;
    let metadata = file.metadata().map_err(|e| refuse(e.to_string()))?;
    if !metadata.is_file() {
        return Err(refuse("not a regular file".to_owned()));
    }
    let mut text = String::new();
    file.take(CONFIG_FILE_LIMIT + 1)
        .read_to_string(&mut text)
        .map_err(|e| refuse(e.to_string()))?;
    if text.len() as u64 > CONFIG_FILE_LIMIT {
        return Err(refuse(format!("longer than {CONFIG_FILE_LIMIT} bytes")));
    }
    from_toml(&text).map_err(refuse)
}

/// Reads the options of a Checkpoint request; an empty type URL means the defaults.
///
/// # Errors
/// As [`decode`].
pub fn decode_checkpoint(type_url: &str, value: &[u8]) -> Result<CheckpointOptions, OptionsError> {
    match type_name(type_url) {
        "" if value.is_empty() => Ok(CheckpointOptions::default()),
        CHECKPOINT_OPTIONS if is_json(value) => from_json(type_url, value),
        CHECKPOINT_OPTIONS => {
            let o = oci::CheckpointOptions::parse_from_bytes(value)
                .map_err(|e| malformed(type_url, e))?;
            Ok(CheckpointOptions {
                exit: o.exit,
                open_tcp: o.open_tcp,
                external_unix_sockets: o.external_unix_sockets,
                terminal: o.terminal,
                file_locks: o.file_locks,
                empty_namespaces: o.empty_namespaces,
                work_path: o.work_path,
            })
        }
        _ => Err(OptionsError::ForeignType(type_url.to_owned())),
    }
}

/// The message name of a type URL: what follows the last slash, so that bare names and those under
/// `type.googleapis.com/` or `types.containerd.io/` are the same.
fn type_name(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or(type_url)
}

/// Whether the value is JSON. No protobuf of these types starts with a brace: that byte would be
/// field 15 as a group, which neither type has.
fn is_json(value: &[u8]) -> bool {
    value.first() == Some(&b'{')
}

fn malformed(type_url: &str, reason: impl fmt::Display) -> OptionsError {
    OptionsError::Malformed {
        type_url: type_url.to_owned(),
        reason: reason.to_string(),
    }
}

fn from_json<T: for<'de> Deserialize<'de>>(url: &str, value: &[u8]) -> Result<T, OptionsError> {
    serde_json::from_slice(value).map_err(|e| malformed(url, e))
}

fn from_protobuf(type_url: &str, value: &[u8]) -> Result<RuncOptions, OptionsError> {
    let o = oci::Options::parse_from_bytes(value).map_err(|e| malformed(type_url, e))?;
    // Field 8, criu_path, left the message with containerd 2.0; 1.x daemons still send it.
    let criu_path = match o.special_fields.unknown_fields().get(8) {
        Some(UnknownValueRef::LengthDelimited(path)) => {
            String::from_utf8(path.to_vec()).map_err(|e| malformed(type_url, e))?
        }
        _ => String::new(),
    };
    Ok(RuncOptions {
        no_pivot_root: o.no_pivot_root,
        no_new_keyring: o.no_new_keyring,
        shim_cgroup: o.shim_cgroup,
        io_uid: o.io_uid,
        io_gid: o.io_gid,
        binary_name: o.binary_name,
        root: o.root,
        criu_path,
        systemd_cgroup: o.systemd_cgroup,
        criu_image_path: o.criu_image_path,
        criu_work_path: o.criu_work_path,
        task_api_address: o.task_api_address,
        task_api_version: o.task_api_version,
    })
}

/// Decodes `runtimeoptions.v1.Options`: type_url = 1, config_path = 2, config_body = 3. No crate
/// here carries that message, and three fields need none.
fn generic(type_url: &str, value: &[u8]) -> Result<Source, OptionsError> {
    let (mut content_type, mut path, mut body) = (String::new(), String::new(), Vec::new());
    if is_json(value) {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Generic {
            type_url: String,
            config_path: String,
        }
        let options: Generic = from_json(type_url, value)?;
        (content_type, path) = (options.type_url, options.config_path);
    } else {
        let mut input = CodedInputStream::from_bytes(value);
        let mut read = || -> protobuf::Result<()> {
            while let Some(tag) = input.read_raw_tag_or_eof()? {
                match tag {
                    10 => content_type = input.read_string()?,
                    18 => path = input.read_string()?,
                    26 => body = input.read_bytes()?,
                    _ => input.skip_field(wire_type(tag)?)?,
                }
            }
            Ok(())
        };
        read().map_err(|e| malformed(type_url, e))?;
    }
    if !content_type.is_empty() && type_name(&content_type) != RUNC_OPTIONS {
        return Err(OptionsError::ForeignType(content_type));
    }
    if !body.is_empty() {
        let text = std::str::from_utf8(&body).map_err(|e| malformed(type_url, e))?;
        let options = from_toml(text).map_err(|e| malformed(type_url, e))?;
        return Ok(Source::Inline(Box::new(options)));
    }
    if !path.is_empty() {
        return Ok(Source::File(PathBuf::from(path)));
    }
    Ok(Source::Inline(Box::default()))
}

fn wire_type(tag: u32) -> protobuf::Result<protobuf::rt::WireType> {
    protobuf::rt::WireType::new(tag & 7).ok_or_else(|| {
        protobuf::Error::from(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            format!("field with unknown wire type {}", tag & 7),
        ))
    })
}

/// Reads options as CRI's configuration spells them (`BinaryName`, `SystemdCgroup`). Letter case
/// and underscores do not count, as for Go's decoder; unknown keys are ignored, as there.
fn from_toml(text: &str) -> Result<RuncOptions, String> {
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
    let mut o = RuncOptions::default();
    for (key, value) in &table {
        let folded: String = key
            .chars()
            .filter(|c| *c != '_')
            .map(|c| c.to_ascii_lowercase())
            .collect();
        match folded.as_str() {
            "nopivotroot" => o.no_pivot_root = boolean(key, value)?,
            "nonewkeyring" => o.no_new_keyring = boolean(key, value)?,
            "shimcgroup" => o.shim_cgroup = text_of(key, value)?,
            "iouid" => o.io_uid = number(key, value)?,
            "iogid" => o.io_gid = number(key, value)?,
            "binaryname" => o.binary_name = text_of(key, value)?,
            "root" => o.root = text_of(key, value)?,
            "criupath" => o.criu_path = text_of(key, value)?,
            "systemdcgroup" => o.systemd_cgroup = boolean(key, value)?,
            "criuimagepath" => o.criu_image_path = text_of(key, value)?,
            "criuworkpath" => o.criu_work_path = text_of(key, value)?,
            "taskapiaddress" => o.task_api_address = text_of(key, value)?,
            "taskapiversion" => o.task_api_version = number(key, value)?,
            _ => {}
        }
    }
    Ok(o)
}

fn boolean(key: &str, value: &toml::Value) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| format!("{key} must be true or false"))
}

fn text_of(key: &str, value: &toml::Value) -> Result<String, String> {
    value
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| format!("{key} must be a string"))
}

fn number(key: &str, value: &toml::Value) -> Result<u32, String> {
    value
        .as_integer()
        .and_then(|n| u32::try_from(n).ok())
        .ok_or_else(|| format!("{key} must be a number from 0 to {}", u32::MAX))
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests;
