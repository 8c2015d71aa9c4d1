//! The `-info` action: what this shim and its runtime can do, for containerd 2.x, which reads it
//! before it makes a container (shim-contract section 2, "-info").

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use protobuf::{Message, MessageField};
use task_api::task::{Any, FEATURES, RuntimeInfo, RuntimeVersion};

use crate::flavor::Flavor;
use crate::manager::{REVISION, VERSION};
use crate::runc::{ContainerStdio, RuncOptions, Runtime, options};

/// How long the runtime may take to say what it can do.
const FEATURES_TIMEOUT: Duration = Duration::from_secs(5);

/// The reply, an encoded `RuntimeInfo`, to the options in `stdin` (an `Any`, or nothing).
///
/// # Errors
/// Malformed or foreign options; a runtime that does not exist. A runtime that does not know
/// `features` is no error: the reply holds none then.
pub fn info(flavor: Flavor, stdin: &[u8]) -> Result<Vec<u8>, String> {
    let request = match stdin {
        [] => None,
        bytes => Some(
            Any::parse_from_bytes(bytes)
                .map_err(|error| format!("stdin does not hold runtime options: {error}"))?,
        ),
    };
    let options = match &request {
        Some(any) => options::load(&any.type_url, &any.value).map_err(|error| error.to_string())?,
        None => RuncOptions::default(),
    };
    let env: Vec<_> = std::env::vars_os().collect();
    let features = features(&Runtime::new(&options, ""), &env)?;
    let message = RuntimeInfo {
        name: flavor.runtime_name().to_owned(),
        version: MessageField::some(RuntimeVersion {
            version: VERSION.to_owned(),
            revision: REVISION.to_owned(),
            ..RuntimeVersion::default()
        }),
        options: request.into(),
        features: features
            .map(|value| Any {
                type_url: FEATURES.to_owned(),
                value,
                ..Any::default()
            })
            .into(),
        ..RuntimeInfo::default()
    };
    message
        .write_to_bytes()
        .map_err(|error| format!("encode the runtime info: {error}"))
}

/// The runtime's own account, as JSON; `None` when it gives none.
fn features(runtime: &Runtime, env: &[(OsString, OsString)]) -> Result<Option<Vec<u8>>, String> {
    let call = runtime.features();
    let running = call
        .start(env, Path::new("/"), ContainerStdio::Collected)
        .map_err(|error| format!("runtime {}: {error}", runtime.program.display()))?;
    let exited = sys::wait::wait_timeout(&running.child, FEATURES_TIMEOUT);
    let Ok(Some(exited)) = exited else {
        // It goes with us (its parent-death signal), and its group at once.
        let _ = sys::pidfd::kill_group(running.child.pid, libc::SIGKILL);
        return Ok(None);
    };
    let output = running.outcome(exited.status).ok();
    Ok(output.filter(|json| serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn ask(binary: &Path) -> Result<RuntimeInfo, String> {
        let json = format!(r#"{{"binary_name":{binary:?}}}"#);
        let any = Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: json.into_bytes(),
            ..Any::default()
        };
        let reply = info(Flavor::V2, &any.write_to_bytes().unwrap())?;
        let info = RuntimeInfo::parse_from_bytes(&reply).unwrap();
        assert_eq!(info.options.as_ref(), Some(&any), "options are echoed");
        Ok(info)
    }

    fn script(dir: &Path, body: &str) -> std::path::PathBuf {
        let path = dir.join("runtime");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn the_runtimes_features_are_passed_on() {
        let reply = info(Flavor::V2, b"").unwrap();
        let info = RuntimeInfo::parse_from_bytes(&reply).unwrap();
        assert_eq!(info.name, "io.containerd.runc.v2");
        assert!(info.options.is_none());
        assert_eq!(info.features.type_url, FEATURES);
        let json: serde_json::Value = serde_json::from_slice(&info.features.value).unwrap();
        assert!(json["ociVersionMin"].is_string(), "{json}");
    }

    #[test]
    fn a_runtime_without_features_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        for body in ["exit 1", "echo no JSON", "kill -KILL $$"] {
            let reply = ask(&script(dir.path(), body)).unwrap();
            assert!(reply.features.is_none(), "{body}");
        }
    }

    #[test]
    fn a_missing_runtime_is_named() {
        let error = ask(Path::new("/nonexistent/runc")).unwrap_err();
        assert!(error.contains("/nonexistent/runc"), "{error}");
        let error = info(Flavor::V2, b"\xff").unwrap_err();
        assert!(error.contains("stdin"), "{error}");
    }
}
