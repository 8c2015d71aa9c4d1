//! `wherryd oci-hook`: lets a hook of a container be any program, by filling what the OCI runtime
//! tells about the container into the program's arguments and environment. What `ctr run --gpus`
//! writes into a spec calls it under the name of containerd.
//!
//! A place to fill is `{{name}}` or `{{annotation "KEY"}}`, spaces allowed.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

/// More than this many bytes are no state of a container, and no spec.
const LIMIT: u64 = 16 << 20;

/// What an OCI runtime tells a hook on stdin.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    id: String,
    status: String,
    pid: i64,
    bundle: String,
    annotations: HashMap<String, String>,
}

/// What is read of a spec.
#[derive(Deserialize)]
struct Spec {
    root: Option<Root>,
}

#[derive(Deserialize)]
struct Root {
    path: String,
}

/// Becomes the program, which keeps its name and gets the rest filled in.
///
/// # Errors
/// A text; there is no way back from success.
pub fn run(command: &[OsString]) -> Result<(), String> {
    if command.is_empty() {
        return Err("oci-hook: which program?".to_owned());
    }
    let mut state = Vec::new();
    std::io::stdin()
        .take(LIMIT)
        .read_to_end(&mut state)
        .map_err(|error| format!("stdin: {error}"))?;
    let state: State =
        serde_json::from_slice(&state).map_err(|error| format!("state on stdin: {error}"))?;
    let filled: Vec<OsString> = command
        .iter()
        .map(|argument| fill(argument, &state))
        .collect::<Result<_, _>>()?;
    let mut program = Command::new(&filled[0]);
    program.args(&filled[1..]);
    for (name, value) in std::env::vars_os() {
        program.env(name, fill(&value, &state)?);
    }
    let error = program.exec();
    Err(format!("{}: {error}", filled[0].display()))
}

/// The folder of the container's root.
fn rootfs(state: &State) -> Result<String, String> {
    let bundle = Path::new(&state.bundle);
    let path = bundle.join(task_api::bundle::CONFIG);
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = std::fs::read(&path).map_err(|error| told(&error))?;
    let spec: Spec = serde_json::from_slice(&text).map_err(|error| told(&error))?;
    let root = spec.root.map(|root| root.path).unwrap_or_default();
    Ok(bundle.join(root).to_string_lossy().into_owned())
}

fn fill(text: &OsStr, state: &State) -> Result<OsString, String> {
    let bytes = text.as_bytes();
    let find = |from: usize, what: &[u8]| {
        let found = bytes[from..].windows(2).position(|pair| pair == what);
        found.map(|at| from + at)
    };
    let mut filled = Vec::new();
    let mut at = 0;
    while let Some(open) = find(at, b"{{") {
        let close =
            find(open, b"}}").ok_or_else(|| format!("{}: `{{{{` is not closed", text.display()))?;
        filled.extend_from_slice(&bytes[at..open]);
        let place = String::from_utf8_lossy(&bytes[open + 2..close]);
        filled.extend_from_slice(value(place.trim(), state)?.as_bytes());
        at = close + 2;
    }
    filled.extend_from_slice(&bytes[at..]);
    Ok(OsString::from_vec(filled))
}

fn value(place: &str, state: &State) -> Result<String, String> {
    if let Some(key) = place.strip_prefix("annotation") {
        let key = key.trim();
        let quoted = [('"', '"'), ('`', '`')]
            .iter()
            .find_map(|(open, close)| key.strip_prefix(*open)?.strip_suffix(*close));
        if let Some(key) = quoted {
            return Ok(state.annotations.get(key).cloned().unwrap_or_default());
        }
    }
    match place {
        "id" => Ok(state.id.clone()),
        "pid" => Ok(state.pid.to_string()),
        "bundle" => Ok(state.bundle.clone()),
        "status" => Ok(state.status.clone()),
        "rootfs" => rootfs(state),
        _ => Err(format!("{{{{{place}}}}}: nothing to fill in of that name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_in() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), r#"{"root":{"path":"fs"}}"#).unwrap();
        let json = serde_json::json!({
            "ociVersion": "1.0.2", "id": "c", "pid": 7, "status": "created",
            "bundle": dir.path(), "annotations": {"k": "v"},
        });
        let state: State = serde_json::from_value(json).unwrap();
        let filled = |text: &str| fill(text.as_ref(), &state);
        let root = dir.path().join("fs");
        for (text, expected) in [
            ("plain", "plain"),
            ("--pid={{pid}}", "--pid=7"),
            ("{{ id }}/{{status}}", "c/created"),
            ("{{annotation \"k\"}}{{annotation `none`}}", "v"),
            ("{{rootfs}}", root.to_str().unwrap()),
            ("{}} }}", "{}} }}"),
        ] {
            assert_eq!(filled(text).unwrap(), expected, "{text}");
        }
        for text in ["{{", "{{other}}", "{{annotation k}}"] {
            filled(text).unwrap_err();
        }
    }
}
