//! What a shim says of itself without a container: `-info`, which shims have since containerd 2.0.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use protobuf::Message;
use task_api::task::RuntimeInfo;
use tokio::process::Command;

use super::process;

/// How long a shim may take to say it.
const LIMIT: Duration = Duration::from_secs(10);

/// Asks the shim `binary` about the runtime that `options` (an encoded Any, or nothing) select.
///
/// # Errors
/// The shim is older, the runtime is not there, or what it says makes no sense.
pub async fn ask(binary: &Path, options: &[u8]) -> io::Result<RuntimeInfo> {
    let mut command = Command::new(binary);
    command
        .arg("-info")
        .current_dir("/")
        .env_remove(task_api::bootstrap::env::NOTIFY_SOCKET)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = process::run(command, options, LIMIT).await?;
    RuntimeInfo::parse_from_bytes(&output.stdout)
        .map_err(|error| io::Error::other(format!("{}: -info: {error}", binary.display())))
}
