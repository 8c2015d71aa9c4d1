//! The `delete` action: what containerd runs on every teardown and after a shim has died.

use std::process::Stdio;

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
    let mut command = request.command();
    let output = command
        .arg("-bundle")
        .arg(&request.bundle)
        .arg("delete")
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("run {}: {e}", request.binary.display()));
    DeleteOutcome {
        code: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
