//! The `delete` action: what containerd runs on every teardown and after a shim has died.

use std::process::{Child, Stdio};

use containerd_shim_protos::api::DeleteResponse;
use protobuf::Message as _;

use crate::shim::StartRequest;

/// What `delete` left.
#[derive(Clone, Debug)]
pub struct DeleteOutcome {
    /// Exit code, or none when it died of a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, which containerd logs as clean-up warnings.
    pub stderr: String,
}

impl DeleteOutcome {
    /// The decoded reply.
    ///
    /// # Panics
    /// When the action failed or its output is no `DeleteResponse`.
    #[track_caller]
    pub fn response(&self) -> DeleteResponse {
        assert_eq!(self.code, Some(0), "delete failed: {}", self.stderr);
        DeleteResponse::parse_from_bytes(&self.stdout).expect("delete prints a DeleteResponse")
    }
}

/// Runs `delete` with the flags of `start` plus the bundle.
pub fn run(request: &StartRequest) -> DeleteOutcome {
    finish(start(request))
}

/// Begins what [`run`] does.
pub fn start(request: &StartRequest) -> Child {
    request
        .command()
        .arg("-bundle")
        .arg(&request.bundle)
        .arg("delete")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("run {}: {e}", request.binary.display()))
}

/// Waits for the end of a `delete` that was started.
pub fn finish(child: Child) -> DeleteOutcome {
    let output = child.wait_with_output().expect("collect delete");
    DeleteOutcome {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
