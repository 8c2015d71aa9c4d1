//! Starts a call of the runtime, and reads its outcome once the reaper has reported its exit.
//! Nothing waits here: between the two, the supervisor goes on.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use sys::spawn::{Child, Spawn, Stdio};

use super::command::{Call, Operation};
use super::error::{ErrorKind, RuntimeError};

/// How much of the end of a runtime's log is read, in bytes.
const LOG_LIMIT: usize = 64 * 1024;
/// How much of a failed runtime's output is read, in bytes.
const OUTPUT_LIMIT: usize = 16 * 1024;
/// How much of the answer of `ps` and `features` is read, in bytes: a list of pids grows with the
/// container, and half of it would be no JSON.
const ANSWER_LIMIT: usize = 4 * 1024 * 1024;
/// Never handed to a runtime: a supervisor's readiness socket is none of the container's business
/// (shim-contract 1.2).
const STRIPPED: &str = "NOTIFY_SOCKET";

/// The environment of a call, as given to [`Call::start`].
pub type Environment = [(OsString, OsString)];

/// The standard streams of a call.
#[derive(Debug, Default)]
pub enum ContainerStdio {
    /// Nothing to read, and what the runtime prints is collected: every call that runs no process
    /// of the container, and those whose process gets a terminal.
    #[default]
    Collected,
    /// The process's own streams; `None` is /dev/null.
    Process {
        /// Its standard input.
        stdin: Option<OwnedFd>,
        /// Its standard output.
        stdout: Option<OwnedFd>,
        /// Its standard error; the runtime's own complaints go there too, as with Go's shims.
        stderr: Option<OwnedFd>,
    },
}

/// A call whose runtime runs. Dropping it closes its descriptors; the child is the reaper's.
#[derive(Debug)]
pub struct Running {
    /// The runtime.
    pub child: Child,
    operation: Operation,
    program: String,
    log: OwnedFd,
    output: Option<OwnedFd>,
    /// The file the runtime was told to read, open as long as it may do so.
    _input: Option<OwnedFd>,
}

/// What a call that succeeded printed; empty where its streams were the process's.
pub type Output = Vec<u8>;

impl Call {
    /// Starts the runtime: in a process group of its own, to be killed when the calling thread
    /// ends (call it from the main thread only), with `env` less `NOTIFY_SOCKET`, in `cwd`. The
    /// runtime is looked up in the PATH of `env` unless its name has a slash.
    ///
    /// # Errors
    /// The runtime could not be found or executed; the text is the client's.
    pub fn start(
        mut self,
        env: &Environment,
        cwd: &Path,
        stdio: ContainerStdio,
    ) -> Result<Running, RuntimeError> {
        let program = self.program.to_string_lossy().into_owned();
        let operation = self.operation;
        let input = self.input.take();
        let spawned = self.spawn(env, cwd, stdio);
        let (child, log, output) =
            spawned.map_err(|e| RuntimeError::from_spawn(operation, &program, &e))?;
        Ok(Running {
            child,
            operation,
            program,
            log,
            output,
            _input: input,
        })
    }

    fn spawn(
        self,
        env: &Environment,
        cwd: &Path,
        stdio: ContainerStdio,
    ) -> io::Result<(Child, OwnedFd, Option<OwnedFd>)> {
        let log = sys::memfd::empty("wherry-log")?;
        let (stdin, stdout, stderr, output) = match stdio {
            ContainerStdio::Collected => {
                let output = sys::memfd::empty("wherry-output")?;
                let (out, err) = (output.try_clone()?, output.try_clone()?);
                (Stdio::Null, Stdio::Fd(out), Stdio::Fd(err), Some(output))
            }
            ContainerStdio::Process {
                stdin,
                stdout,
                stderr,
            } => {
                let or_null = |fd: Option<OwnedFd>| fd.map_or(Stdio::Null, Stdio::Fd);
                (or_null(stdin), or_null(stdout), or_null(stderr), None)
            }
        };
        let args = self.argv(&sys::memfd::proc_path(log.as_fd()));
        log::debug!("run {args:?}");
        let env = environment(env, self.path_first.as_deref());
        let child = Spawn {
            program: find(&self.program, &env)?,
            args,
            env,
            cwd: Some(cwd.to_owned()),
            stdin,
            stdout,
            stderr,
            parent_death_signal: Some(libc::SIGKILL),
            new_process_group: true,
            ..Spawn::new(PathBuf::new())
        }
        .spawn()?;
        Ok((child, log, output))
    }
}

/// `env` without what is stripped, and with `path_first` in front of its PATH.
fn environment(env: &Environment, path_first: Option<&Path>) -> Vec<(OsString, OsString)> {
    let mut env: Vec<_> = env
        .iter()
        .filter(|(name, _)| name != STRIPPED)
        .cloned()
        .collect();
    if let Some(dir) = path_first {
        let mut path = dir.as_os_str().to_owned();
        match env.iter_mut().find(|(name, _)| name == "PATH") {
            Some((_, value)) => {
                path.push(":");
                path.push(&value);
                *value = path;
            }
            None => env.push(("PATH".into(), path)),
        }
    }
    env
}

/// The runtime's absolute path. A name with a slash is taken as it is, from the working directory.
fn find(program: &Path, env: &Environment) -> io::Result<PathBuf> {
    if program.as_os_str().as_encoded_bytes().contains(&b'/') {
        return std::path::absolute(program);
    }
    let path = env.iter().find(|(name, _)| name == "PATH");
    let path = path.map_or_else(OsString::new, |(_, value)| value.clone());
    sys::spawn::find_program(program, &path)
}

impl Running {
    /// Which command this is.
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// The outcome, `status` being that of the exit notice: the exit code, or 128 + signal.
    ///
    /// A `delete` of a container the runtime does not know has succeeded: checkpointing deletes
    /// it, and so does a cleanup that ran before (shim-contract section 2).
    ///
    /// # Errors
    /// The runtime failed; the text is the client's.
    pub fn outcome(self, status: u32) -> Result<Output, RuntimeError> {
        let answers = matches!(self.operation, Operation::Ps | Operation::Features);
        if status == 0 {
            return Ok(match self.output {
                Some(output) if answers => tail(output, ANSWER_LIMIT),
                _ => Vec::new(),
            });
        }
        let log = tail(self.log, LOG_LIMIT);
        let output = self
            .output
            .map_or_else(Vec::new, |output| tail(output, OUTPUT_LIMIT));
        let error = RuntimeError::from_exit(self.operation, &self.program, status, &log, &output);
        match (self.operation, error.kind) {
            (Operation::Delete, ErrorKind::NoSuchContainer) => Ok(Vec::new()),
            _ => Err(error),
        }
    }
}

/// The last `limit` bytes of a memory file, which has been written by now: nothing blocks.
fn tail(file: OwnedFd, limit: usize) -> Vec<u8> {
    let read = || -> io::Result<Vec<u8>> {
        let file = File::from(file);
        let size = file.metadata()?.len();
        let length = size.min(limit as u64);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(limit)];
        file.read_exact_at(&mut bytes, size - length)?;
        Ok(bytes)
    };
    read().unwrap_or_else(|e| {
        log::warn!("reading what the runtime wrote: {e}");
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use super::super::command::{CreateArgs, ExecArgs, Runtime};
    use super::super::{options::RuncOptions, pid_file, ps};
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Held while a program is written and while one is started: a child that another test has
    /// just forked would still hold the file open for writing, and executing it would fail.
    static FILES: std::sync::Mutex<()> = std::sync::Mutex::new(());

    fn files() -> std::sync::MutexGuard<'static, ()> {
        FILES
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn start(call: Call, stdio: ContainerStdio) -> Result<Running, RuntimeError> {
        let _files = files();
        call.start(&env(), Path::new("/"), stdio)
    }

    fn env() -> Vec<(OsString, OsString)> {
        let mut env: Vec<_> = std::env::vars_os().filter(|(k, _)| k != STRIPPED).collect();
        env.push((STRIPPED.into(), "/nowhere".into()));
        env
    }

    fn create_args<'a>(id: &'a str, bundle: &'a Path, pid_file: &'a Path) -> CreateArgs<'a> {
        CreateArgs {
            id,
            bundle,
            pid_file,
            console_socket: None,
            no_pivot_root: false,
            no_new_keyring: false,
        }
    }

    fn some_create(r: &Runtime) -> Call {
        r.create(&create_args("c", Path::new("/b"), Path::new("/b/init.pid")))
    }

    /// Runs a call to its end.
    fn run(call: Call, stdio: ContainerStdio) -> Result<Output, RuntimeError> {
        let running = start(call, stdio)?;
        let exited = sys::wait::wait_timeout(&running.child, std::time::Duration::from_secs(20));
        let exited = exited.unwrap().expect("the runtime hangs");
        running.outcome(exited.status)
    }

    /// A runtime that is this shell script.
    fn script(dir: &Path, text: &str) -> Runtime {
        let _files = files();
        let path = dir.join("odd");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let binary_name = path.to_str().unwrap().to_owned();
        Runtime::new(
            &RuncOptions {
                binary_name,
                ..Default::default()
            },
            "ns",
        )
    }

    #[test]
    fn a_runtime_that_prints_nonsense() {
        let dir = tempfile::tempdir().unwrap();
        let r = script(dir.path(), "echo zork; echo oops >&2; exit 1");
        let text = run(some_create(&r), ContainerStdio::Collected).unwrap_err();
        let program = r.program.display();
        assert_eq!(
            text.message,
            format!(
                "OCI runtime create failed: unable to retrieve OCI runtime error (no log was \
                 written): {program} did not terminate successfully: exit status 1: zork\noops"
            )
        );
    }

    #[test]
    fn a_runtime_that_dies_by_signal_or_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let r = script(dir.path(), "kill -9 $$");
        let error = run(r.start("c"), ContainerStdio::Collected).unwrap_err();
        assert!(error.message.ends_with("exit status 137"), "{error}");

        let missing = Runtime {
            program: "/no/such/runc".into(),
            ..r.clone()
        };
        let error = run(missing.start("c"), ContainerStdio::Collected).unwrap_err();
        assert!(
            error
                .message
                .contains("fork/exec /no/such/runc: no such file"),
            "{error}"
        );
        let missing = Runtime {
            program: "no-such-runc".into(),
            ..r
        };
        let error = run(missing.start("c"), ContainerStdio::Collected).unwrap_err();
        let want = "exec: \"no-such-runc\": executable file not found in $PATH";
        assert!(error.message.ends_with(want), "{error}");
    }

    #[test]
    fn the_environment_is_passed_less_what_is_stripped() {
        let dir = tempfile::tempdir().unwrap();
        // The working directory and the process group too: a group of its own has its own number.
        let print = "pwd; echo ${NOTIFY_SOCKET-none}; [ $(ps -o pgid= -p $$) = $$ ] && echo group";
        let r = script(dir.path(), print);
        let output = run(r.features(), ContainerStdio::Collected).unwrap();
        assert_eq!(String::from_utf8(output).unwrap(), "/\nnone\ngroup\n");
        let path = environment(&[("PATH".into(), "/a:/b".into())], Some(Path::new("/c")));
        assert_eq!(path, [("PATH".into(), "/c:/a:/b".into())]);
        assert_eq!(
            environment(&[], Some(Path::new("/c"))),
            [("PATH".into(), "/c".into())]
        );
    }

    #[test]
    fn what_is_read_of_a_talkative_runtime_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let script_text = r#"
            for a in "$@"; do [ "$p" = --log ] && log="$a"; p="$a"; done
            i=0; while [ $i -lt 3000 ]; do
                echo '{"level":"info","msg":"0123456789012345678901234567890123456789"}' >> "$log"
                echo 0123456789; i=$((i+1))
            done
            echo '{"level":"error","msg":"the end"}' >> "$log"; echo "last words"; exit 1"#;
        let r = script(dir.path(), script_text);
        let error = run(r.start("c"), ContainerStdio::Collected).unwrap_err();
        assert_eq!(error.message, "OCI runtime start failed: the end");
        let error = run(r.kill("c", 9, false), ContainerStdio::Collected).unwrap_err();
        assert!(
            error.message.len() < OUTPUT_LIMIT + 200,
            "{} bytes",
            error.message.len()
        );
        assert!(error.message.contains("last words"));
    }

    #[test]
    fn output_goes_to_the_process_streams() {
        let dir = tempfile::tempdir().unwrap();
        let r = script(dir.path(), "cat; echo err >&2");
        let (out, err) = (dir.path().join("out"), dir.path().join("err"));
        let (input, writer) = sys::pipe::pipe().unwrap();
        let create = |p| OwnedFd::from(File::create(p).unwrap());
        let stdio = ContainerStdio::Process {
            stdin: Some(input),
            stdout: Some(create(&out)),
            stderr: Some(create(&err)),
        };
        let call = some_create(&r);
        let running = start(call, stdio).unwrap();
        io::Write::write_all(&mut File::from(writer), b"hello").unwrap();
        let exited = sys::wait::wait_pid(running.child.pid).unwrap();
        assert!(running.outcome(exited.status).unwrap().is_empty());
        assert_eq!(std::fs::read(out).unwrap(), b"hello");
        assert_eq!(std::fs::read(err).unwrap(), b"err\n");
    }

    /// A bundle whose process is `args` on the busybox of the host; copied from the host.
    fn bundle(dir: &Path, args: &[&str]) {
        let _files = files();
        let bin = dir.join("rootfs/bin");
        std::fs::create_dir_all(&bin).unwrap();
        for sub in ["proc", "dev"] {
            std::fs::create_dir_all(dir.join("rootfs").join(sub)).unwrap();
        }
        std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        let config = serde_json::json!({
            "ociVersion": "1.0.2",
            "process": {"args": args, "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]},
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}]}
        });
        std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    }

    #[test]
    fn a_container_under_the_real_runc() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("state").to_str().unwrap().to_owned();
        let r = Runtime::new(
            &RuncOptions {
                root,
                ..Default::default()
            },
            "ns",
        );
        let id = format!("wherry-driver-{}", std::process::id());
        bundle(dir.path(), &["/bin/nosuch"]);
        let pid_path = dir.path().join("init.pid");
        let args = create_args(&id, dir.path(), &pid_path);
        let nothing = || ContainerStdio::Process {
            stdin: None,
            stdout: None,
            stderr: None,
        };
        let error = run(r.create(&args), nothing()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::ExecutableNotFound, "{error}");

        bundle(dir.path(), &["/bin/busybox", "sleep", "100"]);
        run(r.create(&args), nothing()).unwrap();
        let pid = pid_file::read(&pid_path).unwrap();
        run(r.start(&id), ContainerStdio::Collected).unwrap();
        let pids = ps::parse(&run(r.ps(&id), ContainerStdio::Collected).unwrap()).unwrap();
        assert_eq!(pids, [pid]);
        assert!(r.state_dir(&id).is_dir());

        let process = br#"{"args":["/bin/busybox","nosuch"],"cwd":"/","user":{"uid":0,"gid":0}}"#;
        let exec_pid = dir.path().join("e.pid");
        let exec = ExecArgs {
            id: &id,
            process,
            pid_file: &exec_pid,
            console_socket: None,
        };
        run(r.exec(&exec).unwrap(), nothing()).unwrap();
        pid_file::read(&exec_pid).unwrap();
        let exec = ExecArgs {
            process: br#"{"args":["/no"],"cwd":"/"}"#,
            ..exec
        };
        let error = run(r.exec(&exec).unwrap(), nothing()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::ExecutableNotFound, "{error}");

        let limits = br#"{"pids":{"limit":77}}"#;
        run(r.update(&id, limits).unwrap(), ContainerStdio::Collected).unwrap();
        run(r.pause(&id), ContainerStdio::Collected).unwrap();
        run(r.resume(&id), ContainerStdio::Collected).unwrap();
        let features = run(r.features(), ContainerStdio::Collected).unwrap();
        serde_json::from_slice::<serde_json::Value>(&features).unwrap();

        run(r.delete(&id, true), ContainerStdio::Collected).unwrap();
        run(r.delete(&id, false), ContainerStdio::Collected).unwrap();
        let error = run(r.kill(&id, 9, false), ContainerStdio::Collected).unwrap_err();
        assert!(
            error.not_found && error.message == "no such container",
            "{error}"
        );
    }
}
