//! Our figures of a container beside those of the Go shim that runs it.
//!
//! containerd 1.6 with its Go shim runs a container; both are asked for the same container's
//! figures. What cannot change while the container sleeps must be equal; what grows must lie
//! between two readings of the Go shim, one before ours and one after.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use containerd_shim_protos::api::{StatsRequest, StatsResponse};
use containerd_shim_protos::cgroups::metrics::{BlkIOEntry, CPUStat, Metrics};
use protobuf::Message as _;
use protobuf::MessageFull as _;
use sys::spawn::{Child, Spawn, Stdio};

use super::super::{Cgroup, Version, v1};

const TOOLS: [&str; 5] = [
    "/usr/bin/containerd",
    "/usr/bin/ctr",
    "/usr/bin/containerd-shim-runc-v2",
    "/usr/sbin/runc",
    "/bin/busybox",
];

/// A private containerd with one busybox container under the Go shim.
struct GoContainer {
    folder: tempfile::TempDir,
    namespace: String,
    containerd: Child,
}

impl GoContainer {
    fn start(script: &str) -> Option<Self> {
        if Version::of_machine() != Version::V1 {
            eprintln!("SKIPPED: this machine has cgroup v2");
            return None;
        }
        if let Some(missing) = TOOLS.iter().find(|tool| !Path::new(tool).exists()) {
            eprintln!("SKIPPED: {missing} is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (root, state, socket) = (at("root"), at("state"), at("c.sock"));
        let config = format!(
            "version = 2\nroot = {root:?}\nstate = {state:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {socket:?}\n"
        );
        fs::write(at("config.toml"), config).unwrap();
        fs::create_dir_all(at("rootfs/bin")).unwrap();
        fs::copy("/bin/busybox", at("rootfs/bin/busybox")).unwrap();
        let containerd = spawn(
            &[
                "/usr/bin/containerd",
                "-c",
                at("config.toml").to_str().unwrap(),
            ],
            &at("log"),
        );
        let namespace = format!("wherry-cgroup-{}", std::process::id());
        let this = Self {
            folder,
            namespace,
            containerd,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while this.ctr(&["version"]) != 0 {
            assert!(
                Instant::now() < deadline,
                "containerd does not answer: {}",
                this.log("log")
            );
        }
        let rootfs = this.at("rootfs");
        let run = [
            "run",
            "-d",
            "--memory-limit",
            "67108864",
            "--rootfs",
            rootfs.to_str().unwrap(),
        ];
        let command = ["c", "/bin/busybox", "sh", "-c", script];
        assert_eq!(
            this.ctr(&[&run[..], &command[..]].concat()),
            0,
            "{}",
            this.log("ctr")
        );
        Some(this)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_default()
    }

    /// Runs `ctr` in our namespace and returns its exit code.
    fn ctr(&self, arguments: &[&str]) -> u32 {
        let socket = self.at("c.sock");
        let common = [
            "/usr/bin/ctr",
            "-a",
            socket.to_str().unwrap(),
            "-n",
            &self.namespace,
        ];
        let child = spawn(&[&common[..], arguments].concat(), &self.at("ctr"));
        sys::wait::wait_timeout(&child, Duration::from_secs(30))
            .unwrap()
            .expect("ctr ends")
            .status
    }

    fn bundle(&self) -> PathBuf {
        self.at("state/io.containerd.runtime.v2.task")
            .join(&self.namespace)
            .join("c")
    }

    fn pid(&self) -> i32 {
        fs::read_to_string(self.bundle().join("init.pid"))
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    /// The figures as the Go shim sends them.
    async fn metrics(&self) -> (String, Metrics) {
        let address = fs::read_to_string(self.bundle().join("address")).unwrap();
        let client = ttrpc::asynchronous::Client::connect(address.trim())
            .await
            .unwrap();
        let ask = StatsRequest {
            id: "c".to_owned(),
            ..Default::default()
        };
        let request = ttrpc::Request {
            service: "containerd.task.v2.Task".to_owned(),
            method: "Stats".to_owned(),
            payload: ask.write_to_bytes().unwrap(),
            timeout_nano: 10_000_000_000,
            ..Default::default()
        };
        let response = client.request(request).await.unwrap();
        let stats = StatsResponse::parse_from_bytes(&response.payload)
            .unwrap()
            .stats
            .unwrap();
        (
            stats.type_url,
            Metrics::parse_from_bytes(&stats.value).unwrap(),
        )
    }
}

impl Drop for GoContainer {
    fn drop(&mut self) {
        self.ctr(&["task", "rm", "-f", "c"]);
        self.ctr(&["container", "rm", "c"]);
        let _ = sys::pidfd::kill(self.containerd.pid, libc::SIGTERM);
        let _ = sys::wait::wait_timeout(&self.containerd, Duration::from_secs(20));
        // ctr names the cgroup after namespace and container; nobody removes the namespace's.
        if let Ok(left) = Cgroup::of_path(&format!("/{}", self.namespace)) {
            let _ = left.remove();
        }
    }
}

fn spawn(arguments: &[&str], log: &Path) -> Child {
    let file = fs::File::create(log).unwrap();
    let mut spawn = Spawn::new(arguments[0]);
    spawn.args = arguments.iter().map(Into::into).collect();
    spawn.env = vec![(
        "PATH".into(),
        "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
    )];
    spawn.stdout = Stdio::Fd(file.try_clone().unwrap().into());
    spawn.stderr = Stdio::Fd(file.into());
    spawn.spawn().unwrap()
}

fn ours(pid: i32) -> (String, Metrics) {
    let any = Cgroup::of_process(pid).unwrap().stats().unwrap();
    (any.type_url, Metrics::parse_from_bytes(&any.value).unwrap())
}

/// Makes the kernel count the requests of the container's cgroup to the disk under `folder`: since
/// 6.10 it does so only for a disk that some cgroup has a limit for. The limit set here is never
/// reached.
fn count_block_requests(pid: i32, folder: &Path) -> bool {
    let device = fs::metadata(folder).unwrap().dev();
    let line = format!(
        "{}:{} 1000000000000",
        libc::major(device),
        libc::minor(device)
    );
    let cgroup = Cgroup::of_process(pid).unwrap();
    let dir = cgroup.controller("blkio").unwrap();
    fs::write(dir.join("blkio.throttle.write_bps_device"), line).is_ok()
}

/// The cpu part, which a sleeping container may still add to, and the rest.
fn take_cpu(mut metrics: Metrics) -> (CPUStat, Metrics) {
    let cpu = metrics.cpu.take().unwrap();
    (cpu, metrics)
}

#[test]
fn every_field_is_as_the_go_shim_says() {
    // Some dirty pages, some anonymous memory, and requests to a disk, which count for the
    // container that made them only if they go past the page cache.
    let script = "b=/bin/busybox; until $b test -e /go; do $b usleep 1000; done; \
                  $b dd if=/dev/zero of=/x bs=64k count=64 oflag=direct; \
                  $b dd if=/dev/zero of=/y bs=64k count=64; \
                  $b touch /ready; exec $b sleep 1000";
    let Some(container) = GoContainer::start(script) else {
        return;
    };
    let counts_blocks = count_block_requests(container.pid(), container.folder.path());
    fs::write(container.at("rootfs/go"), "").unwrap();
    let ready = container.at("rootfs/ready");
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ready.exists() {
        assert!(Instant::now() < deadline, "the container did not get ready");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let pid = container.pid();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        // The kernel writes pages back and folds its per-processor counters when it likes: if two
        // readings of the Go shim differ, a reading of ours between them proves nothing.
        let deadline = Instant::now() + Duration::from_secs(60);
        let (before, ours, after) = loop {
            let (go_type, before) = container.metrics().await;
            let (our_type, ours) = ours(pid);
            let (_, after) = container.metrics().await;
            assert_eq!(our_type, go_type);
            assert_eq!(our_type, v1::TYPE_URL);
            let still = take_cpu(before.clone()).1 == take_cpu(after.clone()).1;
            if still {
                break (take_cpu(before), take_cpu(ours), take_cpu(after));
            }
            assert!(
                Instant::now() < deadline,
                "the container does not come to rest"
            );
        };
        assert_eq!(ours.1, before.1, "memory, pids, blkio, oom, hugetlb, rdma");
        assert!(ours.1.memory.usage.usage > 0 && ours.1.memory.total_cache > 0);
        assert_eq!(ours.1.memory.usage.limit, 67_108_864);
        assert_eq!(ours.0.throttling, before.0.throttling);
        let between = |what: &str, pick: &dyn Fn(&CPUStat) -> u64| {
            let (low, ours, high) = (pick(&before.0), pick(&ours.0), pick(&after.0));
            assert!(
                low <= ours && ours <= high,
                "{what}: {low} <= {ours} <= {high}"
            );
        };
        between("total", &|cpu| cpu.usage.total);
        between("user", &|cpu| cpu.usage.user);
        between("kernel", &|cpu| cpu.usage.kernel);
        assert!(ours.0.usage.total > 0);
        assert_eq!(ours.0.usage.per_cpu.len(), before.0.usage.per_cpu.len());
        for index in 0..ours.0.usage.per_cpu.len() {
            between("per cpu", &|cpu| cpu.usage.per_cpu[index]);
        }
        // Nothing that the wire format has is left out of the comparison above by mistake.
        let fields: Vec<_> = Metrics::descriptor()
            .fields()
            .map(|field| field.name().to_owned())
            .collect();
        assert_eq!(fields.len(), 9, "{fields:?}");
        if counts_blocks {
            let bytes = &ours.1.blkio.io_service_bytes_recursive;
            let written = |entry: &BlkIOEntry| entry.op == "Write" && entry.value >= 64 << 16;
            assert!(bytes.iter().any(written), "{bytes:?}");
            assert!(bytes.iter().all(|entry| entry.device.starts_with("/dev/")));
        } else {
            eprintln!("SKIPPED in part: the folder for tests is on no disk that counts requests");
        }
    });
    for controller in ["hugetlb", "rdma"] {
        if Cgroup::of_process(pid)
            .unwrap()
            .controller(controller)
            .is_none()
        {
            eprintln!("SKIPPED in part: no {controller} controller on this machine");
        }
    }
    assert_eq!(Cgroup::of_process(pid).unwrap().processes().unwrap(), [pid]);
}
