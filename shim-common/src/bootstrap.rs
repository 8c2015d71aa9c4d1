//! The two ways in which containerd starts a shim, told apart by what it writes to stdin
//! (shim-contract section 1.3).
//!
//! Up to 2.2 stdin holds the runtime options as an `Any`, or nothing, and every daemon understands
//! the bare address as reply. Since 2.3 it holds `BootstrapParams`. The two messages have fields 1
//! and 2 of the same types, so that one decodes as the other; only the instance id and the
//! namespace, which must be those of the command line, prove which it is.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use protobuf::Message;
use protobuf::well_known_types::any::Any;
use task_api::bootstrap::{BootstrapParams, BootstrapResult, PROTOCOL, RESULT_VERSION};
use task_api::options::{RUNC_OPTIONS, type_name};

/// The most that is read from stdin, in bytes: ttrpc's limit of a message.
pub const STDIN_LIMIT: u64 = 4 * 1024 * 1024;

/// Who called `start`, and with what.
#[derive(Debug, Clone, PartialEq)]
pub enum StartRequest {
    /// A daemon before 2.3, with the runtime options if it has any.
    Legacy(Option<Any>),
    /// A daemon from 2.3 on.
    Params(Box<BootstrapParams>),
}

/// Why stdin was refused.
#[derive(Debug)]
pub enum BootstrapError {
    /// It could not be read.
    Read(io::Error),
    /// It holds more than [`STDIN_LIMIT`] bytes.
    TooLong,
    /// It holds neither of the two messages.
    Malformed(protobuf::Error),
    /// The reply could not be encoded.
    Encode(protobuf::Error),
}

impl fmt::Display for BootstrapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "read stdin: {error}"),
            Self::TooLong => write!(f, "stdin holds more than {STDIN_LIMIT} bytes"),
            Self::Malformed(error) => write!(
                f,
                "stdin holds neither bootstrap parameters nor runtime options: {error}"
            ),
            Self::Encode(error) => write!(f, "encode the bootstrap result: {error}"),
        }
    }
}

impl std::error::Error for BootstrapError {}

/// Reads all of stdin. A stdin that is not open, or not for reading, is an empty one.
///
/// # Errors
/// Failures of reading, and more than [`STDIN_LIMIT`] bytes.
pub fn read_stdin(stdin: impl Read) -> Result<Vec<u8>, BootstrapError> {
    let mut bytes = Vec::new();
    match stdin.take(STDIN_LIMIT + 1).read_to_end(&mut bytes) {
        Ok(read) if read as u64 > STDIN_LIMIT => Err(BootstrapError::TooLong),
        Ok(_) => Ok(bytes),
        // EBADF: there is no stdin.
        Err(error) if error.raw_os_error() == Some(libc::EBADF) => Ok(bytes),
        Err(error) => Err(BootstrapError::Read(error)),
    }
}

impl StartRequest {
    /// Tells what `stdin` holds, for a shim called with this namespace and id.
    ///
    /// # Errors
    /// Bytes that are neither message.
    pub fn decode(stdin: &[u8], namespace: &str, id: &str) -> Result<Self, BootstrapError> {
        if stdin.is_empty() {
            return Ok(Self::Legacy(None));
        }
        if let Ok(params) = BootstrapParams::parse_from_bytes(stdin)
            && params.instance_id == id
            && params.namespace == namespace
        {
            return Ok(Self::Params(Box::new(params)));
        }
        let options = Any::parse_from_bytes(stdin).map_err(BootstrapError::Malformed)?;
        Ok(Self::Legacy(Some(options)))
    }

    /// The runtime options, whatever their type.
    pub fn options(&self) -> Option<&Any> {
        match self {
            Self::Legacy(options) => options.as_ref(),
            Self::Params(params) => {
                let mut values = params.extensions.iter().filter_map(|e| e.value.as_ref());
                values.find(|value| type_name(&value.type_url) == RUNC_OPTIONS)
            }
        }
    }

    /// The folder for the socket, if the daemon chose one.
    pub fn socket_dir(&self) -> Option<&Path> {
        match self {
            Self::Legacy(_) => None,
            Self::Params(params) => params
                .socket_dir
                .as_deref()
                .filter(|dir| !dir.is_empty())
                .map(Path::new),
        }
    }

    /// containerd's gRPC and ttrpc addresses, empty where the daemon did not say.
    pub fn containerd_addresses(&self) -> (&str, &str) {
        match self {
            Self::Legacy(_) => ("", ""),
            Self::Params(params) => (
                &params.containerd_grpc_address,
                &params.containerd_ttrpc_address,
            ),
        }
    }

    /// Whether the daemon wants a shim that logs more (levels below the one called info).
    pub fn debug(&self) -> bool {
        matches!(self, Self::Params(params) if params.log_level.value() < 0)
    }

    /// What to print once the shim can be reached at `address`: what this daemon understands.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn reply(&self, address: &str) -> Result<Vec<u8>, BootstrapError> {
        match self {
            Self::Legacy(_) => Ok(address.as_bytes().to_vec()),
            Self::Params(_) => BootstrapResult {
                version: RESULT_VERSION,
                address: address.to_owned(),
                // The last field, and so the end of the reply: daemons up to 2.3.3 trim white
                // space before they decode, which must not be part of the message.
                protocol: PROTOCOL.to_owned(),
                ..BootstrapResult::default()
            }
            .write_to_bytes()
            .map_err(BootstrapError::Encode),
        }
    }
}

/// An environment for the served process: `base` without systemd's notification socket, with
/// `changes` in the place of what they name.
pub fn served_environment(
    base: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
    changes: &[(&str, &str)],
) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    let mut env: Vec<_> = base
        .filter(|(name, _)| {
            name != task_api::bootstrap::env::NOTIFY_SOCKET
                && changes.iter().all(|(changed, _)| name != changed)
        })
        .collect();
    env.extend(
        changes
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into())),
    );
    env
}

/// The folder of the socket as an absolute path.
pub fn socket_dir_or_default(request: &StartRequest) -> PathBuf {
    request
        .socket_dir()
        .unwrap_or_else(|| Path::new(task_api::bootstrap::SOCKET_DIR))
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use protobuf::MessageField;
    use task_api::bootstrap::{Extension, LogLevel};

    fn params() -> BootstrapParams {
        BootstrapParams {
            instance_id: "c1".into(),
            namespace: "ns".into(),
            log_level: LogLevel::LOG_LEVEL_DEBUG.into(),
            extensions: vec![Extension {
                value: MessageField::some(Any {
                    type_url: RUNC_OPTIONS.into(),
                    value: vec![8, 1],
                    ..Any::default()
                }),
                ..Extension::default()
            }],
            socket_dir: Some("/run/s".into()),
            ..BootstrapParams::default()
        }
    }

    #[test]
    fn parameters_are_answered_in_protobuf() {
        let bytes = params().write_to_bytes().unwrap();
        let request = StartRequest::decode(&bytes, "ns", "c1").unwrap();
        assert!(request.debug());
        assert_eq!(request.socket_dir(), Some(Path::new("/run/s")));
        assert_eq!(request.options().unwrap().value, [8, 1]);
        let reply = request.reply("unix:///run/s/x").unwrap();
        assert!(!reply[0].is_ascii_whitespace() && !reply[reply.len() - 1].is_ascii_whitespace());
        let result = BootstrapResult::parse_from_bytes(&reply).unwrap();
        assert_eq!(
            (result.version, result.address.as_str()),
            (3, "unix:///run/s/x")
        );
        assert_eq!(result.protocol, "ttrpc");
    }

    #[test]
    fn options_are_not_taken_for_parameters() {
        // An Any of string fields 1 and 2 decodes as parameters of that instance and namespace.
        let any = Any {
            type_url: RUNC_OPTIONS.into(),
            value: b"ns".to_vec(),
            ..Any::default()
        };
        let bytes = any.write_to_bytes().unwrap();
        assert!(BootstrapParams::parse_from_bytes(&bytes).is_ok());
        let request = StartRequest::decode(&bytes, "ns", "c1").unwrap();
        assert_eq!(request.options(), Some(&any));
        assert_eq!(request.reply("unix:///a").unwrap(), b"unix:///a");
        // Nor are the parameters of another container taken for ours.
        let other = params().write_to_bytes().unwrap();
        for (namespace, id) in [("ns", "c2"), ("n", "c1")] {
            let request = StartRequest::decode(&other, namespace, id).unwrap();
            assert!(matches!(request, StartRequest::Legacy(_)));
        }
    }

    #[test]
    fn no_stdin_is_a_legacy_caller_without_options() {
        assert_eq!(read_stdin(io::empty()).unwrap(), b"");
        assert_eq!(
            StartRequest::decode(b"", "ns", "c").unwrap(),
            StartRequest::Legacy(None)
        );
    }

    #[test]
    fn too_much_and_nonsense_are_refused() {
        let error = read_stdin(io::repeat(b' ')).unwrap_err();
        assert!(
            error.to_string().contains("more than 4194304 bytes"),
            "{error}"
        );
        let error = StartRequest::decode(b"\xff\xff\xff", "ns", "c").unwrap_err();
        assert!(error.to_string().contains("stdin holds neither"), "{error}");
    }

    #[test]
    fn the_environment_is_handed_on_without_the_notification_socket() {
        let base = [("A", "1"), ("NOTIFY_SOCKET", "/x"), ("GOMAXPROCS", "2")];
        let env = served_environment(
            base.iter().map(|(n, v)| ((*n).into(), (*v).into())),
            &[("GOMAXPROCS", "4")],
        );
        assert_eq!(
            env,
            [("A".into(), "1".into()), ("GOMAXPROCS".into(), "4".into())]
        );
    }

    proptest! {
        #[test]
        fn no_stdin_is_fatal(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(request) = StartRequest::decode(&bytes, "n", "i") {
                let _ = (request.options(), request.debug(), request.socket_dir());
            }
        }
    }
}
