//! The files of a bundle (shim-contract section 1.4) and the ids that become parts of their names.

use crate::status::Refusal;

/// The OCI spec, by containerd.
pub const CONFIG: &str = "config.json";
/// The mount point of the container's root, by containerd.
pub const ROOTFS: &str = "rootfs";
/// The FIFO that a shim's log lines go to, by containerd.
pub const LOG: &str = "log";
/// Path of the shim's binary, by containerd.
pub const SHIM_BINARY_PATH: &str = "shim-binary-path";
/// How to reach the shim, by containerd 2.x.
pub const BOOTSTRAP: &str = "bootstrap.json";
/// The runc options of the container, by the shim.
pub const OPTIONS: &str = "options.json";
/// Name or path of the runtime's binary, by the shim.
pub const RUNTIME: &str = "runtime";
/// The shim's address, by the shim; containerd up to 1.7 finds a shim again by it.
pub const ADDRESS: &str = "address";
/// The shim's pid, by shims of the v1 flavour.
pub const SHIM_PID: &str = "shim.pid";
/// The pid of the container's first process, by the runtime.
pub const INIT_PID: &str = "init.pid";
/// A symlink to the `socket_dir` of the bootstrap parameters, by the shim.
pub const SOCKET_DIR_LINK: &str = "s";
/// What criu said about a failed checkpoint, by the shim.
pub const CRIU_DUMP_LOG: &str = "criu-dump.log";

/// The longest id accepted, in bytes. containerd stops at 76; file names of at most 255 bytes
/// are made from an id, with a prefix and a suffix, so no shim can take many more.
pub const ID_LIMIT: usize = 200;

/// Name of the file that the runtime writes the pid of an exec to.
pub fn exec_pid_file(exec_id: &str) -> String {
    format!("{exec_id}.pid")
}

/// Checks the id of a container.
///
/// # Errors
/// `InvalidArgument` for an id that could name another file than its own or pass for an option:
/// empty, `.`, longer than [`ID_LIMIT`], with `/`, `..`, NUL or another control character in it,
/// or with a `-` in front. Everything else passes, as with the Go shims: containerd has its own,
/// stricter rule.
pub fn check_container_id(id: &str) -> Result<(), Refusal> {
    check("container id", id)
}

/// Checks a namespace, which is a folder of the runtime's state; the rule is that of
/// [`check_container_id`].
///
/// # Errors
/// `InvalidArgument`.
pub fn check_namespace(namespace: &str) -> Result<(), Refusal> {
    check("namespace", namespace)
}

/// Checks the id of an exec; the rule is that of [`check_container_id`], and `init` is refused
/// too: its pid file would be the container's.
///
/// # Errors
/// `InvalidArgument`.
pub fn check_exec_id(id: &str) -> Result<(), Refusal> {
    check("exec id", id)?;
    if exec_pid_file(id) == INIT_PID {
        return Err(Refusal::invalid_argument(format_args!(
            "exec id {id:?} is reserved"
        )));
    }
    Ok(())
}

fn check(kind: &str, id: &str) -> Result<(), Refusal> {
    let fault = if id.is_empty() {
        "is empty".to_owned()
    } else if id.len() > ID_LIMIT {
        // The id itself would only blow up the message.
        let text = format!("{kind} of {} bytes is longer than {ID_LIMIT}", id.len());
        return Err(Refusal::invalid_argument(text));
    } else if id == "." || id.contains("..") || id.contains('/') {
        "leads out of its folder".to_owned()
    } else if id.starts_with('-') {
        "looks like an option".to_owned()
    } else if id.chars().any(char::is_control) {
        "contains a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(Refusal::invalid_argument(format_args!(
        "{kind} {id:?} {fault}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Code;

    #[test]
    fn ids_of_every_client_pass() {
        let docker = "0123456789abcdef".repeat(4);
        for id in [
            docker.as_str(),
            "a",
            "my_task-1.2",
            "k8s.io+x",
            "A:b",
            &"x".repeat(ID_LIMIT),
        ] {
            check_container_id(id).unwrap();
            check_exec_id(id).unwrap();
        }
    }

    #[test]
    fn ids_that_lead_elsewhere_are_refused() {
        let long = "x".repeat(ID_LIMIT + 1);
        for id in [
            "", ".", "..", "a/b", "/", "../a", "a..b", "a\0b", "a\nb", "-f", &long,
        ] {
            for refusal in [
                check_container_id(id).unwrap_err(),
                check_exec_id(id).unwrap_err(),
            ] {
                assert_eq!(refusal.code, Code::INVALID_ARGUMENT, "{id:?}");
                assert!(refusal.message.ends_with(": invalid argument"), "{refusal}");
                assert!(refusal.message.len() < 100, "{refusal}");
            }
        }
        check_container_id("init").unwrap();
        check_exec_id("init").unwrap_err();
    }
}
