//! The task service: one container, one lock, and whoever waits for its exit.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::spawn;

use containerd_shim::api::{
    ConnectRequest, ConnectResponse, CreateTaskRequest, CreateTaskResponse, DeleteRequest,
    DeleteResponse, Empty, KillRequest, Options, PidsRequest, PidsResponse, ShutdownRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, Status, WaitRequest, WaitResponse,
};
use containerd_shim::monitor::{Subscription, Topic, monitor_subscribe, wait_pid};
use containerd_shim::mount::{mount_rootfs, umount_recursive};
use containerd_shim::protos::events::task::{TaskCreate, TaskDelete, TaskExit, TaskStart};
use containerd_shim::protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim::protos::protobuf::{Message as _, MessageField};
use containerd_shim::protos::types::task::ProcessInfo;
use containerd_shim::{Error, ExitSignal, Task, TtrpcContext, TtrpcResult, util};

use crate::events::Events;
use crate::runtime::Runtime;

/// How and when the first process ended.
#[derive(Clone)]
struct Exit {
    status: u32,
    at: Timestamp,
}

/// The container, from Create to Delete.
struct Container {
    request: CreateTaskRequest,
    runtime: Runtime,
    pid: u32,
    started: bool,
    exit: Option<Exit>,
}

impl Container {
    fn status(&self) -> Status {
        match (self.started, &self.exit) {
            (_, Some(_)) => Status::STOPPED,
            (true, None) => Status::RUNNING,
            (false, None) => Status::CREATED,
        }
    }
}

#[derive(Default)]
struct Shared {
    container: Mutex<Option<Container>>,
    exited: Condvar,
}

/// The service of one shim.
pub struct Service {
    namespace: String,
    shutdown: Arc<ExitSignal>,
    events: Events,
    shared: Arc<Shared>,
}

impl Service {
    /// A service without a container, which `shutdown` ends.
    pub fn new(namespace: String, shutdown: Arc<ExitSignal>, events: Events) -> Self {
        Self {
            namespace,
            shutdown,
            events,
            shared: Arc::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Container>> {
        self.shared.container.lock().unwrap()
    }

    /// Mounts the root filesystem and makes the container; its pid.
    fn make(&self, request: &CreateTaskRequest) -> Result<(Runtime, u32), Error> {
        let mut options = Options::new();
        if let Some(any) = request.options.as_ref() {
            options = Options::parse_from_bytes(&any.value)?;
        }
        util::write_options(&request.bundle, &options)?;
        let bundle = Path::new(&request.bundle);
        let rootfs = bundle.join("rootfs");
        for mount in &request.rootfs {
            let (kind, source) = (Some(mount.type_.as_str()), Some(mount.source.as_str()));
            mount_rootfs(kind, source, &mount.options, &rootfs)?;
        }
        let runtime = Runtime::new(&self.namespace, &options, bundle);
        let streams = [&request.stdin, &request.stdout, &request.stderr];
        let pid = runtime.create(&request.id, streams.map(String::as_str));
        match pid {
            Ok(pid) => Ok((runtime, pid.unsigned_abs())),
            Err(error) => {
                // The first error is the one to tell.
                let _ = runtime.delete(&request.id);
                let _ = umount_recursive(rootfs.to_str(), 0);
                Err(error)
            }
        }
    }

    /// Waits for the container's exit in a thread, and tells everybody.
    fn watch(&self, id: &str, pid: u32, exits: Subscription) {
        let (shared, events, id) = (Arc::clone(&self.shared), self.events.clone(), id.to_owned());
        spawn(move || {
            let code = wait_pid(pid.cast_signed(), exits);
            let exit = Exit {
                status: code.unsigned_abs(),
                at: util::timestamp().unwrap_or_default(),
            };
            let mut container = shared.container.lock().unwrap();
            // Whoever deletes it waits for this first.
            if let Some(container) = container.as_mut() {
                container.exit = Some(exit.clone());
            }
            let mut event = TaskExit::new();
            event.container_id.clone_from(&id);
            event.id = id;
            event.pid = pid;
            event.exit_status = exit.status;
            event.exited_at = MessageField::some(exit.at);
            events.send(event);
            shared.exited.notify_all();
        });
    }
}

/// The container, if it is the one that is asked for; execs there are none.
fn find<'a>(
    container: &'a mut Option<Container>,
    id: &str,
    exec: &str,
) -> Result<&'a mut Container, Error> {
    if !exec.is_empty() {
        return Err(Error::NotFoundError(format!(
            "process {exec} does not exist"
        )));
    }
    container
        .as_mut()
        .filter(|c| c.request.id == id)
        .ok_or_else(|| Error::NotFoundError(format!("container {id} does not exist")))
}

impl Task for Service {
    fn connect(&self, _: &TtrpcContext, _: ConnectRequest) -> TtrpcResult<ConnectResponse> {
        let mut response = ConnectResponse::new();
        response.shim_pid = std::process::id();
        response.task_pid = self.lock().as_ref().map_or(0, |c| c.pid);
        Ok(response)
    }

    fn create(
        &self,
        _: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> TtrpcResult<CreateTaskResponse> {
        if request.terminal {
            let text = "terminals are not supported".to_owned();
            return Err(Error::InvalidArgument(text).into());
        }
        let mut container = self.lock();
        if container.is_some() {
            let text = "this shim has its container".to_owned();
            return Err(Error::FailedPreconditionError(text).into());
        }
        // Before there is a process: its exit is told but once.
        let exits = monitor_subscribe(Topic::Pid)?;
        let (runtime, pid) = self.make(&request)?;
        let mut event = TaskCreate::new();
        event.container_id.clone_from(&request.id);
        event.bundle.clone_from(&request.bundle);
        event.rootfs.clone_from(&request.rootfs);
        event.pid = pid;
        self.events.send(event);
        self.watch(&request.id, pid, exits);
        *container = Some(Container {
            request,
            runtime,
            pid,
            started: false,
            exit: None,
        });
        let mut response = CreateTaskResponse::new();
        response.pid = pid;
        Ok(response)
    }

    fn start(&self, _: &TtrpcContext, request: StartRequest) -> TtrpcResult<StartResponse> {
        let mut container = self.lock();
        let container = find(&mut container, &request.id, &request.exec_id)?;
        if container.status() != Status::CREATED {
            let text = format!("container {} was started before", request.id);
            return Err(Error::FailedPreconditionError(text).into());
        }
        container.runtime.start(&request.id)?;
        container.started = true;
        let mut event = TaskStart::new();
        event.container_id = request.id;
        event.pid = container.pid;
        self.events.send(event);
        let mut response = StartResponse::new();
        response.pid = container.pid;
        Ok(response)
    }

    fn state(&self, _: &TtrpcContext, request: StateRequest) -> TtrpcResult<StateResponse> {
        let mut container = self.lock();
        let container = find(&mut container, &request.id, &request.exec_id)?;
        let mut response = StateResponse::new();
        response.id = request.id;
        response.bundle.clone_from(&container.request.bundle);
        response.pid = container.pid;
        response.status = container.status().into();
        response.stdin.clone_from(&container.request.stdin);
        response.stdout.clone_from(&container.request.stdout);
        response.stderr.clone_from(&container.request.stderr);
        if let Some(exit) = &container.exit {
            response.exit_status = exit.status;
            response.exited_at = MessageField::some(exit.at.clone());
        }
        Ok(response)
    }

    fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> TtrpcResult<PidsResponse> {
        let mut container = self.lock();
        let container = find(&mut container, &request.id, "")?;
        let mut response = PidsResponse::new();
        if container.exit.is_none() {
            let mut process = ProcessInfo::new();
            process.pid = container.pid;
            response.processes.push(process);
        }
        Ok(response)
    }

    fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> TtrpcResult<WaitResponse> {
        let mut container = self.lock();
        loop {
            let found = find(&mut container, &request.id, &request.exec_id)?;
            if let Some(exit) = &found.exit {
                let mut response = WaitResponse::new();
                response.exit_status = exit.status;
                response.exited_at = MessageField::some(exit.at.clone());
                return Ok(response);
            }
            container = self.shared.exited.wait(container).unwrap();
        }
    }

    fn kill(&self, _: &TtrpcContext, request: KillRequest) -> TtrpcResult<Empty> {
        let mut container = self.lock();
        let container = find(&mut container, &request.id, &request.exec_id)?;
        container
            .runtime
            .kill(&request.id, request.signal, request.all)?;
        Ok(Empty::new())
    }

    fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> TtrpcResult<DeleteResponse> {
        let mut slot = self.lock();
        let container = find(&mut slot, &request.id, &request.exec_id)?;
        if container.status() == Status::RUNNING {
            let text = format!("container {} still runs", request.id);
            return Err(Error::FailedPreconditionError(text).into());
        }
        // By force, which also ends a container that was never started.
        container.runtime.delete(&request.id)?;
        let (pid, rootfs) = (
            container.pid,
            Path::new(&container.request.bundle).join("rootfs"),
        );
        umount_recursive(rootfs.to_str(), 0)?;
        while slot.as_ref().is_some_and(|c| c.exit.is_none()) {
            slot = self.shared.exited.wait(slot).unwrap();
        }
        let exit = slot.take().and_then(|c| c.exit);
        // Those who still wait find no container any more.
        self.shared.exited.notify_all();
        let mut response = DeleteResponse::new();
        let mut event = TaskDelete::new();
        event.container_id.clone_from(&request.id);
        event.id = request.id;
        event.pid = pid;
        response.pid = pid;
        if let Some(exit) = exit {
            response.exit_status = exit.status;
            event.exit_status = exit.status;
            response.exited_at = MessageField::some(exit.at.clone());
            event.exited_at = MessageField::some(exit.at);
        }
        self.events.send(event);
        Ok(response)
    }

    fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> TtrpcResult<Empty> {
        if self.lock().is_none() {
            self.shutdown.signal();
        }
        Ok(Empty::new())
    }
}
