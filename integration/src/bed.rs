//! The bed of one test: names, folders and sockets of its own, and the cleaning up after it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use containerd_shim_protos::shim::oci::Options;

use crate::bundle::{Bundle, Spec, options_any};
use crate::delete::{self, DeleteOutcome};
use crate::leaks::Leaks;
use crate::shim::{Protocol, Shim, StartRequest};
use crate::sink::EventSink;
use crate::stdio::OutputFifo;
use crate::traces::Traces;
use crate::{host, target, wait};

/// One test's namespace, folder, runtime root, cgroup parent and event sink.
///
/// Dropping it kills and removes whatever is left, also when the test failed; so does SIGTERM, which the
/// runner sends to a test that takes too long.
#[derive(Debug)]
pub struct Bed {
    dir: tempfile::TempDir,
    traces: Arc<Traces>,
    sink: EventSink,
    drains: Mutex<Vec<OutputFifo>>,
    before: Leaks,
}

impl Default for Bed {
    fn default() -> Self {
        Self::new()
    }
}

impl Bed {
    /// A fresh bed; the harness becomes the reaper of orphaned shims and containers.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        nix::sys::prctl::set_child_subreaper(true).expect("become a subreaper");
        let dir = tempfile::Builder::new()
            .prefix("wherry-")
            .tempdir()
            .expect("a folder for the test");
        let namespace = format!(
            "wherry-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        fs::create_dir_all(dir.path().join("run")).expect("a folder for runtime sockets");
        let sink = EventSink::listen(&dir.path().join("containerd.sock.ttrpc"));
        let mut bed = Self {
            traces: Traces::new(dir.path(), namespace),
            dir,
            sink,
            drains: Mutex::new(Vec::new()),
            before: Leaks::default(),
        };
        bed.before = Leaks::snapshot(&bed);
        bed
    }

    /// The test's folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A path inside the test's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    /// The containerd namespace.
    pub fn namespace(&self) -> &str {
        &self.traces.namespace
    }

    /// The event sink.
    pub fn sink(&self) -> &EventSink {
        &self.sink
    }

    /// The `cgroupsPath` of a container, or with "" the parent of all of this bed.
    pub fn cgroup(&self, id: &str) -> String {
        format!("{}/{id}", self.traces.cgroup())
            .trim_end_matches('/')
            .to_owned()
    }

    /// The value of `Options.root`; the shim appends the namespace.
    pub fn runtime_root(&self) -> PathBuf {
        self.traces.runtime_root()
    }

    /// The folder of bundles, which is the one that `delete` looks in.
    pub fn bundles(&self) -> PathBuf {
        self.path("state").join(&self.traces.namespace)
    }

    /// Runtime options with this bed's root and the runtime under test.
    pub fn options(&self) -> Options {
        let mut options = Options::new();
        options.root = self.runtime_root().display().to_string();
        options.binary_name = target::runtime_path().display().to_string();
        options
    }

    /// Writes the bundle of a container.
    pub fn bundle(&self, id: &str, spec: &Spec) -> Bundle {
        self.traces.note(id);
        Bundle::write(&self.bundles(), id, spec, &self.cgroup(id), self.options())
    }

    /// The `start` call for a bundle as containerd up to 2.2 makes it.
    pub fn start_request(&self, bundle: &Bundle) -> StartRequest {
        StartRequest {
            binary: target::shim_binary(),
            namespace: self.traces.namespace.clone(),
            id: bundle.id.clone(),
            grpc_address: self.path("containerd.sock"),
            ttrpc_address: self.sink.path().to_owned(),
            bundle: bundle.path.clone(),
            debug: false,
            protocol: Protocol::Options(options_any(&bundle.options)),
            env: vec![(
                "XDG_RUNTIME_DIR".to_owned(),
                self.path("run").display().to_string(),
            )],
        }
    }

    /// Starts a shim for a bundle.
    #[track_caller]
    pub fn start(&self, bundle: &Bundle) -> Shim {
        self.start_with(&self.start_request(bundle))
    }

    /// Starts a shim that must start.
    #[track_caller]
    pub fn start_with(&self, request: &StartRequest) -> Shim {
        match Shim::start(request) {
            Ok(shim) => shim,
            Err(failed) => panic!(
                "start ended with {:?}: {}",
                failed.code,
                String::from_utf8_lossy(&failed.output)
            ),
        }
    }

    /// A bundle and its shim, not yet created.
    #[track_caller]
    pub fn shim(&self, id: &str, spec: &Spec) -> (Bundle, Shim) {
        let bundle = self.bundle(id, spec);
        let shim = self.start(&bundle);
        (bundle, shim)
    }

    /// A container without stdio that was created.
    #[track_caller]
    pub fn created(&self, id: &str, spec: &Spec) -> (Bundle, Shim) {
        let (bundle, shim) = self.shim(id, spec);
        shim.task
            .create(&bundle.create())
            .unwrap_or_else(|e| panic!("Create: {e}"));
        (bundle, shim)
    }

    /// A container without stdio that runs.
    #[track_caller]
    pub fn running(&self, id: &str, spec: &Spec) -> (Bundle, Shim) {
        let (bundle, shim) = self.created(id, spec);
        shim.task
            .start(id, "")
            .unwrap_or_else(|e| panic!("Start: {e}"));
        (bundle, shim)
    }

    /// Kills a container, waits for its end, deletes it and shuts the shim down.
    #[track_caller]
    pub fn end(&self, bundle: &Bundle, shim: &Shim) {
        // Refused when it has ended already.
        let _ = shim.task.kill(&bundle.id, "", 9, true);
        shim.task
            .wait(&bundle.id, "")
            .unwrap_or_else(|e| panic!("Wait: {e}"));
        shim.task
            .delete(&bundle.id, "")
            .unwrap_or_else(|e| panic!("Delete: {e}"));
        self.shut(bundle, shim);
    }

    /// Shuts a shim down that has no container left and waits for its end.
    #[track_caller]
    pub fn shut(&self, bundle: &Bundle, shim: &Shim) {
        match shim.task.shutdown(&bundle.id) {
            // A shim may end before its answer has left.
            Ok(_) | Err(crate::client::CallError::Closed) => {}
            Err(e) => panic!("Shutdown: {e}"),
        }
        shim.wait_gone();
    }

    /// Runs the `delete` action for a bundle.
    pub fn delete(&self, bundle: &Bundle) -> DeleteOutcome {
        delete::run(&self.start_request(bundle))
    }

    /// What containerd does last: the `delete` action, then the bundle's removal.
    #[track_caller]
    pub fn remove(&self, bundle: &Bundle) {
        // Go's 1.x fails on a bundle that never saw a Create; 2.x and ours do not.
        // Go's v1 fails when the shim has removed its socket itself.
        let created = bundle.path.join("runtime").exists();
        let outcome = self.delete(bundle);
        if target::flavor() != target::Flavor::Go || (created && !target::under_test_is_v1()) {
            outcome.response();
        }
        self.discard(bundle);
    }

    /// Removes the bundle's folder, without any call.
    #[track_caller]
    pub fn discard(&self, bundle: &Bundle) {
        fs::remove_dir_all(&bundle.path).expect("remove the bundle");
    }

    /// Removes a container and its shim as containerd does and fails on anything left behind.
    #[track_caller]
    pub fn finish(&self, bundle: &Bundle, shim: &Shim) {
        self.end(bundle, shim);
        self.remove(bundle);
        self.assert_clean();
    }

    /// Ends a shim that has no container, of which nothing may be left, and checks it.
    #[track_caller]
    pub fn finish_empty(&self, bundle: &Bundle, shim: &Shim) {
        wait::eventually(wait::SHORT, "no process of the container", || {
            host::cgroup_members(&bundle.cgroup).is_empty()
        });
        self.shut(bundle, shim);
        self.remove(bundle);
        self.assert_clean();
    }

    /// Fails on anything left behind since the bed was made; FIFOs of clients are the test's.
    #[track_caller]
    pub fn assert_clean(&self) {
        // The runtime leaves the parent cgroup it made on the way.
        host::remove_empty_cgroup(&self.cgroup(""));
        for fifo in host::files_below(&self.path("io"), &|_| true) {
            let _ = fs::remove_file(fifo);
        }
        Leaks::none_since(self, &self.before);
    }

    /// A path for a client's FIFO.
    pub fn fifo(&self, name: &str) -> PathBuf {
        let dir = self.path("io");
        fs::create_dir_all(&dir).expect("a folder for FIFOs");
        dir.join(name)
    }

    /// A FIFO whose reader throws everything away, for a stream that a test does not care about.
    ///
    /// Streams of one process never share a FIFO here: Go opens it once per stream, and a reader
    /// that has seen the end of the first is gone when the second is opened.
    pub fn drain(&self) -> String {
        let mut drains = self.drains.lock().unwrap();
        let fifo = OutputFifo::digest_only(&self.fifo(&format!("drain{}", drains.len())));
        let path = fifo.path();
        drains.push(fifo);
        path
    }

    /// A runtime that is a shell script: `$REAL` is the runtime under test, `$cmd` the subcommand.
    pub fn wrapper(&self, name: &str, script: &str) -> PathBuf {
        let path = self.path(name);
        let text = format!(
            "#!/bin/sh\nREAL={}\nDIR={}\ncmd=\nfor a in \"$@\"; do case \"$a\" in \
             create|start|exec|kill|delete|ps|pause|resume|update|state|restore|checkpoint|features) \
             cmd=$a; break;; esac; done\n{script}\n",
            target::runtime_path().display(),
            self.dir().display(),
        );
        fs::write(&path, text).expect("write the wrapper");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod the wrapper");
        path
    }

    /// A bundle whose runtime is the script of [`Self::wrapper`], and its shim.
    #[track_caller]
    pub fn wrapped(&self, id: &str, spec: &Spec, script: &str) -> (Bundle, Shim) {
        let mut bundle = self.bundle(id, spec);
        let wrapper = self.wrapper(&format!("runtime-{id}"), script);
        bundle.options.binary_name = wrapper.display().to_string();
        let shim = self.start(&bundle);
        (bundle, shim)
    }

    /// Makes an empty file in the bed's folder, for which scripts wait.
    pub fn flag(&self, name: &str) {
        fs::write(self.path(name), "").expect("make a flag file");
    }

    /// Takes note of a group id that is no container's, for the search for sockets.
    pub fn note_group(&self, group: &str) {
        self.traces.note(group);
    }

    /// The address that a shim of this bed must listen on, by its group's id.
    pub fn socket_of(&self, group: &str) -> PathBuf {
        self.traces.socket_of(group)
    }

    /// The sockets of this bed's ids that exist.
    pub fn sockets(&self) -> Vec<PathBuf> {
        self.traces.sockets()
    }

    /// The states that the runtime keeps for this bed's containers.
    pub fn runtime_states(&self) -> Vec<PathBuf> {
        self.traces.runtime_states()
    }

    /// The processes of this bed: shims and runtimes by argument, containers by cgroup.
    pub fn processes(&self) -> Vec<i32> {
        self.traces.processes()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln_state(self);
        }
        self.traces.clean_up();
    }
}

/// What helps to understand a failed test: the events that arrived and what is still there.
fn eprintln_state(bed: &Bed) {
    println!("events: {:#?}", bed.sink.briefs());
    println!("still there: {:#?}", Leaks::snapshot(bed));
}
