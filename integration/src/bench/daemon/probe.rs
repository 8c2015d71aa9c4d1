//! Whether a daemon serves: one call, `Version` of containerd's version service, whose request is
//! empty.

use std::path::Path;

use super::grpc::Connection;

const METHOD: &str = "containerd.services.version.v1.Version/Version";

/// Asks the daemon at `socket` for its version; true once it has answered with a message.
pub(super) fn answers(socket: &Path) -> bool {
    let asked = Connection::open(socket, "").and_then(|mut daemon| daemon.call(METHOD, &[]));
    asked.is_ok_and(|length| length > 0)
}
