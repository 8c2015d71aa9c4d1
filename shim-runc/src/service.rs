//! The Task service's messages: from wire bytes to a [`Request`], from an [`Answer`] back to
//! wire bytes. No rules live here; what a request means is `container/`'s matter.

use std::cell::Cell;
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;

use crate::runc::RuncOptions;
use protobuf::well_known_types::any::Any;
use protobuf::{Message as _, MessageField};
use shim_common::server::{Call, Method, TaskHandler};
use task_api::bundle::{check_container_id, check_exec_id};
use task_api::status::Refusal;
use task_api::task as wire;
use task_api::time::{to_timestamp as timestamp, unset};
use tokio::sync::{mpsc, oneshot};

use crate::container::{
    CallId, CheckpointCommand, Command, IoPaths, Reply, StateReply, Status, Target,
};
use crate::runc::options;
use crate::supervisor::Message;

/// What Create asks for, ids and options checked.
#[derive(Debug)]
pub struct CreateRequest {
    /// The container's id.
    pub id: String,
    /// The bundle's folder.
    pub bundle: String,
    /// Mounts of the rootfs; none where the client mounts by itself (Docker).
    pub mounts: Vec<sys::mount::Mount>,
    /// What init is connected to.
    pub io: IoPaths,
    /// Folder of the checkpoint to restore from; empty for a fresh container.
    pub checkpoint: String,
    /// Folder of the parent checkpoint.
    pub parent_checkpoint: String,
    /// runc's options.
    pub options: RuncOptions,
}

/// A request, decoded.
#[derive(Debug)]
pub enum Request {
    /// Create a container.
    Create(Box<CreateRequest>),
    /// A command on a container.
    Container(String, Command),
    /// End the shim.
    Shutdown,
}

/// What goes back to the client.
#[derive(Debug)]
pub enum Answer {
    /// What the rules answered.
    Rules(Reply),
    /// Pids with the exec each belongs to.
    Pids(Vec<(i32, Option<String>)>),
    /// Cgroup metrics.
    Stats(Any),
}

/// The handler of the shim's server: passes calls on to the loop and awaits the answers.
#[derive(Clone)]
pub struct Service {
    supervisor: mpsc::UnboundedSender<Message>,
    calls: Rc<Cell<CallId>>,
}

impl Service {
    /// A handler whose calls go to `supervisor`.
    pub(crate) fn new(supervisor: mpsc::UnboundedSender<Message>) -> Self {
        Self {
            supervisor,
            calls: Rc::new(Cell::new(1)),
        }
    }
}

/// Tells the loop when the client of a call goes away before its answer.
struct Awaited {
    call: CallId,
    supervisor: mpsc::UnboundedSender<Message>,
    answered: bool,
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if !self.answered {
            // The loop that is gone has forgotten the call.
            let _ = self.supervisor.send(Message::CallGone(self.call));
        }
    }
}

impl TaskHandler for Service {
    fn call(&self, call: Call) -> impl Future<Output = Result<Vec<u8>, Refusal>> + 'static {
        let number = self.calls.get();
        self.calls.set(number + 1);
        let supervisor = self.supervisor.clone();
        async move {
            let request = decode(call.method, &call.payload)?;
            drop(call.payload);
            let (reply, answer) = oneshot::channel();
            supervisor
                .send(Message::Call(number, request, reply))
                .map_err(|_| Refusal::unavailable("the shim is shutting down"))?;
            let mut awaited = Awaited {
                call: number,
                supervisor,
                answered: false,
            };
            let outcome = answer.await;
            awaited.answered = true;
            let (answer, bundle) =
                outcome.map_err(|_| Refusal::unavailable("the shim is shutting down"))??;
            encode(call.method, &bundle, answer)
        }
    }
}

/// Decodes a request. Errors are InvalidArgument and name what is wrong.
pub fn decode(method: Method, payload: &[u8]) -> Result<Request, Refusal> {
    let command = match method {
        Method::Create => return create(parse(payload)?).map(|c| Request::Create(Box::new(c))),
        Method::Exec => exec(parse(payload)?)?,
        Method::Shutdown => return Ok(Request::Shutdown),
        Method::State => {
            let r: wire::StateRequest = parse(payload)?;
            (r.id, Command::State(Target::from_exec_id(&r.exec_id)))
        }
        Method::Start => {
            let r: wire::StartRequest = parse(payload)?;
            (r.id, Command::Start(Target::from_exec_id(&r.exec_id)))
        }
        Method::Delete => {
            let r: wire::DeleteRequest = parse(payload)?;
            (r.id, Command::Delete(Target::from_exec_id(&r.exec_id)))
        }
        Method::Pids => (parse::<wire::PidsRequest>(payload)?.id, Command::Pids),
        Method::Pause => (parse::<wire::PauseRequest>(payload)?.id, Command::Pause),
        Method::Resume => (parse::<wire::ResumeRequest>(payload)?.id, Command::Resume),
        Method::Checkpoint => {
            let r: wire::CheckpointTaskRequest = parse(payload)?;
            let options = r.options.into_option().unwrap_or_default();
            let decoded = options::decode_checkpoint(&options.type_url, &options.value)
                .map_err(|error| Refusal::invalid_argument(error.to_string()))?;
            (
                r.id,
                Command::Checkpoint(CheckpointCommand {
                    path: r.path,
                    options: decoded,
                }),
            )
        }
        Method::Kill => {
            let r: wire::KillRequest = parse(payload)?;
            let signal = i32::try_from(r.signal)
                .ok()
                .filter(|signal| (0..=64).contains(signal))
                .ok_or_else(|| Refusal::invalid_argument(format!("no signal {}", r.signal)))?;
            let target = Target::from_exec_id(&r.exec_id);
            (
                r.id,
                Command::Kill {
                    target,
                    signal,
                    all: r.all,
                },
            )
        }
        Method::ResizePty => {
            let r: wire::ResizePtyRequest = parse(payload)?;
            let size = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
            let (width, height) = (size(r.width), size(r.height));
            (
                r.id,
                Command::Resize {
                    target: Target::from_exec_id(&r.exec_id),
                    width,
                    height,
                },
            )
        }
        Method::CloseIO => {
            let r: wire::CloseIORequest = parse(payload)?;
            (r.id, Command::CloseIo(Target::from_exec_id(&r.exec_id)))
        }
        Method::Update => {
            let r: wire::UpdateTaskRequest = parse(payload)?;
            let resources = r.resources.into_option().unwrap_or_default().value;
            if resources.is_empty() {
                return Err(Refusal::invalid_argument("update without resources"));
            }
            (r.id, Command::Update(resources))
        }
        Method::Wait => {
            let r: wire::WaitRequest = parse(payload)?;
            (r.id, Command::Wait(Target::from_exec_id(&r.exec_id)))
        }
        Method::Stats => (parse::<wire::StatsRequest>(payload)?.id, Command::Stats),
        Method::Connect => (parse::<wire::ConnectRequest>(payload)?.id, Command::Connect),
    };
    Ok(Request::Container(command.0, command.1))
}

fn parse<M: protobuf::Message>(payload: &[u8]) -> Result<M, Refusal> {
    M::parse_from_bytes(payload)
        .map_err(|error| Refusal::invalid_argument(format!("malformed {}: {error}", M::NAME)))
}

fn create(r: wire::CreateTaskRequest) -> Result<CreateRequest, Refusal> {
    check_container_id(&r.id)?;
    if !r.bundle.starts_with('/') {
        let text = format!("bundle {:?} is not an absolute path", r.bundle);
        return Err(Refusal::invalid_argument(text));
    }
    let options = match r.options.into_option() {
        Some(any) => options::load(&any.type_url, &any.value)
            .map_err(|error| Refusal::invalid_argument(error.to_string()))?,
        None => RuncOptions::default(),
    };
    let mounts = r
        .rootfs
        .into_iter()
        .map(|mount| sys::mount::Mount {
            kind: mount.type_,
            source: mount.source,
            target: mount.target,
            options: mount.options,
        })
        .collect();
    Ok(CreateRequest {
        id: r.id,
        bundle: r.bundle,
        mounts,
        io: IoPaths {
            stdin: r.stdin,
            stdout: r.stdout,
            stderr: r.stderr,
            terminal: r.terminal,
        },
        checkpoint: r.checkpoint,
        parent_checkpoint: r.parent_checkpoint,
        options,
    })
}

fn exec(r: wire::ExecProcessRequest) -> Result<(String, Command), Refusal> {
    check_exec_id(&r.exec_id)?;
    let spec = r.spec.into_option().unwrap_or_default().value;
    let io = IoPaths {
        stdin: r.stdin,
        stdout: r.stdout,
        stderr: r.stderr,
        terminal: r.terminal,
    };
    let spec = with_terminal(&spec, r.terminal).map_err(|error| {
        Refusal::invalid_argument(format!("process spec of exec {}: {error}", r.exec_id))
    })?;
    Ok((
        r.id,
        Command::Exec {
            id: r.exec_id,
            io,
            spec,
        },
    ))
}

/// The request's `terminal` overrides the spec's. A spec that says the same already, which is the
/// rule, is passed on byte for byte; in another every other field stays as it came, since each is
/// kept as raw JSON. The runtimes' decoders take a field's name in any case, so both spellings of
/// a name must not go to them.
fn with_terminal(spec: &[u8], terminal: bool) -> serde_json::Result<Vec<u8>> {
    use serde_json::value::{RawValue, to_raw_value};
    let mut fields: HashMap<String, Box<RawValue>> = serde_json::from_slice(spec)?;
    let is_it = |name: &str| name.eq_ignore_ascii_case("terminal");
    let wanted = if terminal { "true" } else { "false" };
    let mut told = fields.iter().filter(|(name, _)| is_it(name)).peekable();
    let as_wanted = match told.peek() {
        Some(_) => told.all(|(_, value)| value.get() == wanted),
        None => !terminal,
    };
    if as_wanted {
        return Ok(spec.to_vec());
    }
    fields.retain(|name, _| !is_it(name));
    fields.insert("terminal".to_owned(), to_raw_value(&terminal)?);
    serde_json::to_vec(&fields)
}

/// Encodes the answer to a call of `method`.
pub fn encode(method: Method, bundle: &str, answer: Answer) -> Result<Vec<u8>, Refusal> {
    let pid = |pid: i32| u32::try_from(pid).unwrap_or_default();
    let bytes = match answer {
        Answer::Rules(Reply::Empty) => Ok(Vec::new()),
        Answer::Rules(Reply::Pid(task)) => match method {
            Method::Create => wire::CreateTaskResponse {
                pid: pid(task),
                ..Default::default()
            }
            .write_to_bytes(),
            _ => wire::StartResponse {
                pid: pid(task),
                ..Default::default()
            }
            .write_to_bytes(),
        },
        Answer::Rules(Reply::State(state)) => state_response(state, bundle).write_to_bytes(),
        Answer::Rules(Reply::Exit(exit)) => wire::WaitResponse {
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..Default::default()
        }
        .write_to_bytes(),
        Answer::Rules(Reply::Deleted { pid: task, exit }) => wire::DeleteResponse {
            pid: pid(task),
            exit_status: exit.status,
            exited_at: MessageField::some(timestamp(exit.at)),
            ..Default::default()
        }
        .write_to_bytes(),
        Answer::Pids(pids) => pids_response(pids).write_to_bytes(),
        Answer::Stats(stats) => wire::StatsResponse {
            stats: MessageField::some(stats),
            ..Default::default()
        }
        .write_to_bytes(),
        Answer::Rules(Reply::Connect { pid: task }) => wire::ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: pid(task),
            ..Default::default()
        }
        .write_to_bytes(),
    };
    bytes.map_err(|error| Refusal::internal(format!("encode the answer: {error}")))
}

fn state_response(state: StateReply, bundle: &str) -> wire::StateResponse {
    wire::StateResponse {
        id: state.id,
        bundle: bundle.to_owned(),
        pid: u32::try_from(state.pid).unwrap_or_default(),
        status: match state.status {
            Status::Created => wire::Status::CREATED,
            Status::Running => wire::Status::RUNNING,
            Status::Stopped => wire::Status::STOPPED,
            Status::Paused => wire::Status::PAUSED,
            Status::Pausing => wire::Status::PAUSING,
        }
        .into(),
        stdin: state.io.stdin,
        stdout: state.io.stdout,
        stderr: state.io.stderr,
        terminal: state.io.terminal,
        exit_status: state.exit.map_or(0, |exit| exit.status),
        exited_at: MessageField::some(state.exit.map_or_else(unset, |exit| timestamp(exit.at))),
        ..Default::default()
    }
}

fn pids_response(pids: Vec<(i32, Option<String>)>) -> wire::PidsResponse {
    let processes = pids
        .into_iter()
        .map(|(pid, exec)| wire::ProcessInfo {
            pid: u32::try_from(pid).unwrap_or_default(),
            info: exec.map(process_details).into(),
            ..Default::default()
        })
        .collect();
    wire::PidsResponse {
        processes,
        ..Default::default()
    }
}

/// What ties a pid to the exec process it is.
fn process_details(exec_id: String) -> Any {
    let details = wire::ProcessDetails {
        exec_id,
        ..Default::default()
    };
    Any {
        type_url: wire::PROCESS_DETAILS.to_owned(),
        // Encoding a string into memory cannot fail.
        value: details.write_to_bytes().unwrap_or_default(),
        ..Default::default()
    }
}
