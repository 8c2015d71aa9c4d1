//! `containerd-shim-foreign-v1`: a small shim on the crate `containerd-shim`, as a stranger writes it.
//!
//! It is a test fixture: an engine must load it like any other (`io.containerd.foreign.v1`). Its
//! containers are real ones of runc; it serves task v3 only, one container per shim, and of the
//! task service only what one life needs: Connect, Create, Start, State, Pids, Wait, Kill, Delete,
//! Shutdown. Exec, terminals and the rest are refused, by the crate's own answer where there is one.

mod events;
mod runtime;
mod service;

use std::path::Path;
use std::sync::Arc;

use containerd_shim::publisher::RemotePublisher;
use containerd_shim::{Config, DeleteResponse, Error, ExitSignal, Flags, Shim, StartOpts};
use containerd_shim::{mount::umount_recursive, spawn, util};

use events::Events;
use runtime::Runtime;
use service::Service;

/// What a container counts as that was killed while nobody saw its exit.
const KILLED: u32 = 128 + 9;

/// One call of the program, whatever its action.
struct Foreign {
    flags: Flags,
    exit: Arc<ExitSignal>,
    events: Events,
}

impl Shim for Foreign {
    type T = Service;

    fn new(_runtime_id: &str, flags: &Flags, _config: &mut Config) -> Self {
        Self {
            flags: Flags {
                namespace: flags.namespace.clone(),
                id: flags.id.clone(),
                bundle: flags.bundle.clone(),
                ..Flags::default()
            },
            exit: Arc::new(ExitSignal::default()),
            events: Events::default(),
        }
    }

    fn start_shim(&mut self, opts: StartOpts) -> Result<String, Error> {
        let group = opts.id.clone();
        let (_, address) = spawn(opts, &group, Vec::new())?;
        // The served process removes its socket by this file.
        util::write_address(&address)?;
        Ok(address)
    }

    fn delete_shim(&mut self) -> Result<DeleteResponse, Error> {
        let bundle = Path::new(&self.flags.bundle);
        // Without this file there was no Create, and so there is nothing of the runtime's.
        if let Ok(options) = util::read_options(bundle) {
            Runtime::new(&self.flags.namespace, &options, bundle).delete(&self.flags.id)?;
        }
        umount_recursive(bundle.join("rootfs").to_str(), 0)?;
        let mut response = DeleteResponse::new();
        response.set_exit_status(KILLED);
        response.set_exited_at(util::timestamp()?);
        Ok(response)
    }

    fn wait(&mut self) {
        self.exit.wait();
        self.events.flush();
    }

    fn create_task_service(&self, publisher: RemotePublisher) -> Self::T {
        self.events.publish_to(publisher, &self.flags.namespace);
        let namespace = self.flags.namespace.clone();
        Service::new(namespace, Arc::clone(&self.exit), self.events.clone())
    }
}

fn main() {
    containerd_shim::run::<Foreign>("io.containerd.foreign.v1", None);
}
