//! What the daemon and a shim say to each other around `start`, in the words of each generation:
//! the options or, since containerd 2.3, parameters; and the answer, which is a bare address, JSON
//! or a message.

use std::io;

use protobuf::{Message, MessageField};
use serde::{Deserialize, Serialize};
use task_api::bootstrap::{BootstrapParams, BootstrapResult, Extension, LogLevel};
use task_api::task::Any;

use super::process::Surroundings;
use crate::bundle::Bundle;
use crate::version;

/// Where a shim serves, as it is written to `bootstrap.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The version of the task service it announced.
    pub version: i32,
    /// `unix://PATH`, or an abstract socket's name.
    pub address: String,
    /// Always `ttrpc` for what we can call.
    pub protocol: String,
}

/// The parameters for a shim in `bundle`, with `options` (an encoded Any, or nothing) in them.
///
/// # Errors
/// The options are no Any.
pub(super) fn params(
    surroundings: &Surroundings,
    bundle: &Bundle,
    options: &[u8],
) -> io::Result<Vec<u8>> {
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let level = if surroundings.debug {
        LogLevel::LOG_LEVEL_DEBUG
    } else {
        LogLevel::LOG_LEVEL_INFO
    };
    let mut params = BootstrapParams {
        instance_id: bundle.id.clone(),
        namespace: bundle.namespace.clone(),
        log_level: level.into(),
        containerd_version: version::API.to_owned(),
        containerd_ttrpc_address: path(&surroundings.ttrpc_address),
        containerd_grpc_address: path(&surroundings.address),
        containerd_binary: path(&surroundings.publish_binary),
        ..BootstrapParams::default()
    };
    if !options.is_empty() {
        params.extensions.push(Extension {
            value: MessageField::some(Any::parse_from_bytes(options).map_err(io::Error::other)?),
            ..Extension::default()
        });
    }
    params.write_to_bytes().map_err(io::Error::other)
}

/// Reads the answer to `start`: a protobuf message, JSON, or the bare address (shim-contract 1.3).
pub(super) fn endpoint(answer: &[u8]) -> Option<Endpoint> {
    let usable = |endpoint: &Endpoint| {
        endpoint.protocol == "ttrpc"
            && [2, 3].contains(&endpoint.version)
            && endpoint.address.len() > 1
    };
    if let Ok(result) = BootstrapResult::parse_from_bytes(answer) {
        let found = Endpoint {
            version: result.version,
            address: result.address,
            protocol: result.protocol,
        };
        if usable(&found) {
            return Some(found);
        }
    }
    let text = std::str::from_utf8(answer).ok()?.trim();
    if text.starts_with('{') {
        return serde_json::from_str(text).ok().filter(usable);
    }
    Some(legacy(text)).filter(usable)
}

/// The endpoint behind a bare address.
pub fn legacy(address: &str) -> Endpoint {
    Endpoint {
        version: 2,
        address: address.trim().to_owned(),
        protocol: "ttrpc".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_generation_of_answers_is_read() {
        let modern = BootstrapResult {
            version: 3,
            address: "unix:///s".into(),
            protocol: "ttrpc".into(),
            ..BootstrapResult::default()
        };
        let v3 = Endpoint {
            version: 3,
            ..legacy("unix:///s")
        };
        assert_eq!(
            endpoint(&modern.write_to_bytes().unwrap()),
            Some(v3.clone())
        );
        let json = br#"{"version":3,"address":"unix:///s","protocol":"ttrpc"}"#;
        assert_eq!(endpoint(json), Some(v3));
        assert_eq!(endpoint(b"unix:///s\n"), Some(legacy("unix:///s")));
        for rubbish in [
            &b""[..],
            b"\n",
            b"{}",
            br#"{"version":9,"address":"unix:///s"}"#,
            b"\xff",
        ] {
            assert_eq!(endpoint(rubbish), None, "{rubbish:?}");
        }
    }
}
