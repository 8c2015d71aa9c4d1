//! What is under test: the shim binary, whose it is, the runtime below it and what the machine can do.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Whose shim is under test; the suite describes Wherry's and lists where Go's is known to differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// Ours, for which every check must hold.
    Wherry,
    /// containerd's own, told by the "Go version" line of its `-v`.
    Go,
}

/// The shim to test: `SHIM_BINARY`, else the release build of the workspace.
pub fn shim_binary() -> PathBuf {
    std::env::var_os("SHIM_BINARY").map_or_else(
        || release_dir().join("containerd-shim-runc-v2"),
        PathBuf::from,
    )
}

/// The runc-v1 flavour that belongs to [`shim_binary`]: its neighbour in the same folder.
pub fn shim_binary_v1() -> PathBuf {
    let binary = shim_binary();
    if is_v1(&binary) {
        binary
    } else {
        binary.with_file_name("containerd-shim-runc-v1")
    }
}

/// Whether the binary under test is the runc-v1 flavour, which serves one container per shim.
pub fn under_test_is_v1() -> bool {
    is_v1(&shim_binary())
}

fn is_v1(binary: &Path) -> bool {
    binary
        .file_name()
        .is_some_and(|n| n.to_string_lossy().contains("runc-v1"))
}

/// The core daemon to measure: `WHERRYD`, else the release build of the workspace.
pub fn daemon_binary() -> PathBuf {
    std::env::var_os("WHERRYD").map_or_else(|| release_dir().join("wherryd"), PathBuf::from)
}

fn release_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies inside the workspace")
        .join("target/x86_64-unknown-linux-gnu/release")
}

/// Whose shim is under test: `SHIM_FLAVOR` (`go` or anything else), else asked of `-v`.
pub fn flavor() -> Flavor {
    static FLAVOR: OnceLock<Flavor> = OnceLock::new();
    *FLAVOR.get_or_init(|| match std::env::var("SHIM_FLAVOR").as_deref() {
        Ok("go") => Flavor::Go,
        Ok(_) => Flavor::Wherry,
        Err(_) => {
            let binary = shim_binary();
            let output = Command::new(&binary)
                .arg("-v")
                .output()
                .unwrap_or_else(|e| {
                    panic!("cannot run the shim under test {}: {e}", binary.display())
                });
            if String::from_utf8_lossy(&output.stdout).contains("Go version") {
                Flavor::Go
            } else {
                Flavor::Wherry
            }
        }
    })
}

/// The OCI runtime that the shim is told to use: `RUNTIME`, else `runc`.
pub fn runtime() -> String {
    std::env::var("RUNTIME").unwrap_or_else(|_| "runc".to_owned())
}

/// The absolute path of [`runtime`], looked up in PATH.
pub fn runtime_path() -> PathBuf {
    find_in_path(&runtime()).expect("the OCI runtime is installed")
}

/// Where a program lies in PATH, if it is installed at all.
pub fn find_in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// Whether /sys/fs/cgroup itself is cgroup2; a hybrid machine counts as v1.
pub fn cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Why criu cannot be used here, or `Ok` when `criu check` is content.
///
/// # Errors
/// The reason in words, for the line that reports the skip.
pub fn criu() -> Result<(), String> {
    if runtime() == "crun" {
        let version = Command::new(runtime_path()).arg("--version").output();
        let built = version.map_err(|e| format!("crun does not run: {e}"))?;
        if !String::from_utf8_lossy(&built.stdout).contains("+CRIU") {
            return Err("this crun was built without criu".to_owned());
        }
    }
    let Some(criu) = find_in_path("criu") else {
        return Err("criu is not installed".to_owned());
    };
    match Command::new(criu).arg("check").output() {
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => Err(format!(
            "criu check failed: {}",
            String::from_utf8_lossy(&out.stderr).trim()
        )),
        Err(e) => Err(format!("criu does not run: {e}")),
    }
}

/// Says that this test describes something the shim under test is known to do differently.
///
/// Returns true when the shim is of that kind ("go"); the test then ends at once, reported as a
/// difference instead of a pass. Use the macro [`crate::known_difference!`].
pub fn differs(from: &str, reason: &str) -> bool {
    let is = match from {
        "go" => flavor() == Flavor::Go,
        "v1" => under_test_is_v1(),
        "go-v1" => flavor() == Flavor::Go && under_test_is_v1(),
        "go-v2" => flavor() == Flavor::Go && !under_test_is_v1(),
        "crun" => runtime() == "crun",
        other => panic!("no such kind of shim: {other}"),
    };
    if is && from == "v1" {
        // By design of that flavour, whoever wrote the shim: no promise that could be broken.
        note("skipped", reason);
    } else if is {
        if run_known_differences() {
            return false;
        }
        note("differs", reason);
    }
    is
}

/// Whether tests go on where the shim is known to differ, to see whether it still does.
fn run_known_differences() -> bool {
    std::env::var_os("SHIM_RUN_DIFFERENCES").is_some_and(|v| v == "1")
}

/// Reports a skipped test with its reason; use the macro [`crate::skip_unless!`].
pub fn skipped(reason: &str) {
    note("skipped", reason);
}

/// One line on the test's output, and in the file `SHIM_NOTES` names when one is wanted, since
/// test runners swallow the output of passing tests.
fn note(kind: &str, reason: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("?");
    println!("{kind}: {name}: {reason}");
    if let Some(path) = std::env::var_os("SHIM_NOTES")
        && let Ok(mut file) = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)
    {
        // nextest names the test binary, since two of them may have tests of one name.
        let binary = std::env::var("NEXTEST_BINARY_ID").unwrap_or_default();
        let file_name = binary.rsplit("::").next().unwrap_or_default();
        // One write, so that lines of parallel tests do not mix; a lost note loses no test.
        let _ = file.write_all(format!("{kind}: {file_name}::{name}: {reason}\n").as_bytes());
    }
}

/// Ends the test with a line `differs: …` when the shim under test is of the named kind.
#[macro_export]
macro_rules! known_difference {
    ($from:expr, $reason:expr) => {
        if $crate::target::differs($from, $reason) {
            return;
        }
    };
}

/// Ends the test with a line `skipped: …` when the machine lacks what it needs.
#[macro_export]
macro_rules! skip_unless {
    ($condition:expr, $reason:expr) => {
        if !$condition {
            $crate::target::skipped(&$reason.to_string());
            return;
        }
    };
}
