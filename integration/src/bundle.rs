//! Bundles as containerd leaves them for a shim: a folder with `config.json`, a root filesystem of
//! busybox, and the `log` FIFO; plus the requests that name them.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use containerd_shim_protos::api::{CreateTaskRequest, ExecProcessRequest};
use containerd_shim_protos::shim::oci::Options;
use nix::sys::stat::Mode;
use protobuf::well_known_types::any::Any;
use protobuf::{Message as _, MessageField};
use serde_json::{Value, json};

/// Type of the runtime options that containerd sends for runc.
pub const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";
/// Type of the JSON process that an Exec carries.
pub const PROCESS_SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Process";

/// Applets linked into the root filesystem.
const APPLETS: &[&str] = &[
    "cat",
    "chmod",
    "cp",
    "dd",
    "echo",
    "env",
    "false",
    "grep",
    "head",
    "id",
    "kill",
    "ls",
    "md5sum",
    "mkdir",
    "mkfifo",
    "mount",
    "printf",
    "ps",
    "readlink",
    "rm",
    "seq",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "stat",
    "stty",
    "tail",
    "test",
    "touch",
    "true",
    "tty",
    "usleep",
    "wc",
    "yes",
];

/// An Any around JSON, which is how containerd types specs and resources.
pub fn json_any(type_url: &str, value: &Value) -> Any {
    let mut any = Any::new();
    any.type_url = type_url.to_owned();
    any.value = value.to_string().into_bytes();
    any
}

/// An Any around runc options.
pub fn options_any(options: &Options) -> Any {
    let mut any = Any::new();
    any.type_url = RUNC_OPTIONS.to_owned();
    any.value = options.write_to_bytes().expect("options encode");
    any
}

/// What a container shall be; turned into `config.json`.
#[derive(Clone, Debug)]
pub struct Spec {
    json: Value,
}

impl Spec {
    /// A container that runs `args` in its own pid, ipc, uts and mount namespaces.
    pub fn new(args: &[&str]) -> Self {
        let capabilities = json!(["CAP_KILL", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID"]);
        Self {
            json: json!({
                "ociVersion": "1.0.2",
                "process": {
                    "terminal": false,
                    "user": {"uid": 0, "gid": 0},
                    "args": args,
                    "env": ["PATH=/bin", "TERM=xterm"],
                    "cwd": "/",
                    "capabilities": {
                        "bounding": capabilities, "effective": capabilities,
                        "permitted": capabilities,
                    },
                    "noNewPrivileges": true,
                },
                "root": {"path": "rootfs", "readonly": false},
                "hostname": "wherry-test",
                "mounts": [
                    {"destination": "/proc", "type": "proc", "source": "proc"},
                    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                     "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
                    {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
                     "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]},
                ],
                "annotations": {},
                "linux": {
                    "namespaces": [
                        {"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                    ],
                    "resources": {"devices": [{"allow": true, "access": "rwm"}]},
                },
            }),
        }
    }

    /// A container that runs a busybox shell script.
    pub fn sh(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }

    /// A container that stays until it is killed, whatever signal it is sent before SIGKILL.
    pub fn sleeper() -> Self {
        Self::new(&["sleep", "1000"])
    }

    /// A root filesystem that is there already, which many containers may share.
    pub fn rootfs(self, path: &Path) -> Self {
        self.set("/root/path", json!(path))
    }

    /// The process gets a terminal.
    pub fn terminal(mut self) -> Self {
        self.json["process"]["terminal"] = json!(true);
        self
    }

    /// One annotation more.
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.json["annotations"][key] = json!(value);
        self
    }

    /// Limits the memory, swap included where the kernel accounts for it, in bytes.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.json["linux"]["resources"]["memory"] = json!({"limit": bytes});
        self
    }

    /// Leaves out one namespace, so that the container shares the host's.
    pub fn without_namespace(mut self, kind: &str) -> Self {
        if let Some(list) = self.json["linux"]["namespaces"].as_array_mut() {
            list.retain(|n| n["type"] != kind);
        }
        self
    }

    /// Any field by JSON pointer; its parents must exist.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
        let parent = self.json.pointer_mut(parent).expect("the parent exists");
        parent[key] = value;
        self
    }

    /// The process part, which is what an Exec sends.
    pub fn process(&self) -> &Value {
        &self.json["process"]
    }

    /// Whether the process has a terminal.
    pub fn has_terminal(&self) -> bool {
        self.json["process"]["terminal"] == json!(true)
    }

    /// The whole of it.
    pub fn json(&self) -> &Value {
        &self.json
    }
}

/// One bundle folder and what requests about it carry by default.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// The container's id.
    pub id: String,
    /// The bundle folder, named like the container as containerd does.
    pub path: PathBuf,
    /// Options of every Create of this bundle.
    pub options: Options,
    /// The path that `linux.cgroupsPath` names, below each cgroup hierarchy.
    pub cgroup: String,
    terminal: bool,
}

impl Bundle {
    /// Writes the bundle `id` for `spec` below the folder `parent`.
    pub fn write(parent: &Path, id: &str, spec: &Spec, cgroup: &str, options: Options) -> Self {
        let path = parent.join(id);
        fs::create_dir_all(&path).expect("make the bundle");
        let spec = spec.clone().set("/linux/cgroupsPath", json!(cgroup));
        fs::write(path.join("config.json"), spec.json().to_string()).expect("write config.json");
        if spec.json["root"]["path"] == "rootfs" {
            make_rootfs(&path.join("rootfs"));
        }
        nix::unistd::mkfifo(&path.join("log"), Mode::from_bits_truncate(0o600)).expect("mkfifo");
        // What outlives a boot of the machine has a folder elsewhere.
        let work = parent.with_file_name("work").join(id);
        fs::create_dir_all(&work).expect("make the work folder");
        symlink(work, path.join("work")).expect("link the work folder");
        Self {
            id: id.to_owned(),
            path,
            options,
            cgroup: cgroup.to_owned(),
            terminal: spec.has_terminal(),
        }
    }

    /// The container's root filesystem.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join("rootfs")
    }

    /// A Create without stdio.
    pub fn create(&self) -> CreateTaskRequest {
        let mut request = CreateTaskRequest::new();
        request.id.clone_from(&self.id);
        request.bundle = self.path.display().to_string();
        request.terminal = self.terminal;
        request.options = MessageField::some(options_any(&self.options));
        request
    }

    /// A Create with stdio; an empty string leaves a stream out.
    pub fn create_with(&self, stdin: &str, stdout: &str, stderr: &str) -> CreateTaskRequest {
        let mut request = self.create();
        request.stdin = stdin.to_owned();
        request.stdout = stdout.to_owned();
        request.stderr = stderr.to_owned();
        request
    }

    /// An Exec of `args` without stdio.
    pub fn exec(&self, exec: &str, args: &[&str]) -> ExecProcessRequest {
        self.exec_spec(exec, &Spec::new(args))
    }

    /// An Exec of the process part of `spec` without stdio.
    pub fn exec_spec(&self, exec: &str, spec: &Spec) -> ExecProcessRequest {
        let mut request = ExecProcessRequest::new();
        request.id.clone_from(&self.id);
        request.exec_id = exec.to_owned();
        request.terminal = spec.has_terminal();
        request.spec = MessageField::some(json_any(PROCESS_SPEC, spec.process()));
        request
    }
}

/// A root filesystem of busybox and links to it.
pub fn make_rootfs(rootfs: &Path) {
    for dir in ["bin", "dev", "proc", "sys", "tmp", "etc"] {
        fs::create_dir_all(rootfs.join(dir)).expect("make a folder of the rootfs");
    }
    let busybox = crate::target::find_in_path("busybox").expect("busybox-static is installed");
    let target = rootfs.join("bin/busybox");
    fs::copy(&busybox, &target).expect("copy busybox");
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).expect("chmod busybox");
    for applet in APPLETS {
        symlink("busybox", rootfs.join("bin").join(applet)).expect("link an applet");
    }
}
