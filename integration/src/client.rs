//! The task client: every call of containerd's task service, v2 or v3, blocking, by name.

use std::collections::HashMap;
use std::fmt;
use std::io::Write as _;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use containerd_shim_protos::api::{
    CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
    CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
    PauseRequest, PidsRequest, PidsResponse, ResizePtyRequest, ResumeRequest, ShutdownRequest,
    StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest, StatsResponse,
    UpdateTaskRequest, WaitRequest, WaitResponse,
};
use protobuf::Message;
use ttrpc::Code;

use crate::wire::{self, Frame, Response};

/// Service name of the task API up to containerd 1.7.
pub const TASK_V2: &str = "containerd.task.v2.Task";
/// Service name of the task API from containerd 2.0 on.
pub const TASK_V3: &str = "containerd.task.v3.Task";

/// How a call ended when it did not end well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The shim answered with this status.
    Status {
        /// gRPC class.
        code: Code,
        /// Text as sent.
        message: String,
    },
    /// No answer within the time that the harness waits.
    Timeout,
    /// The connection ended before an answer came.
    Closed,
}

impl CallError {
    /// The class of a status; `None` when there was no answer at all.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Status { code, .. } => Some(*code),
            Self::Timeout | Self::Closed => None,
        }
    }

    /// The text of a status; empty when there was no answer at all.
    pub fn message(&self) -> &str {
        match self {
            Self::Status { message, .. } => message,
            Self::Timeout | Self::Closed => "",
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status { code, message } => write!(f, "{code:?}: {message}"),
            Self::Timeout => f.write_str("no answer"),
            Self::Closed => f.write_str("connection closed"),
        }
    }
}

type Waiting = Arc<Mutex<Option<HashMap<u32, Sender<Result<Response, CallError>>>>>>;

/// One connection to a shim; calls from several threads share it, as containerd's do.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    writer: Mutex<(UnixStream, u32)>,
    waiting: Waiting,
}

impl Connection {
    /// Dials `path`, waiting a little for a socket that is about to appear.
    ///
    /// # Errors
    /// The last error of connect(2).
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let reader = stream.try_clone()?;
        let shared = Arc::clone(&waiting);
        thread::Builder::new()
            .name("client".to_owned())
            .spawn(move || read_responses(reader, &shared))?;
        Ok(Self {
            writer: Mutex::new((stream.try_clone()?, 1)),
            stream,
            waiting,
        })
    }

    /// Sends one request and waits up to `patience` for its answer.
    ///
    /// `deadline` travels with the request, as containerd's contexts do; it does not end the wait.
    ///
    /// # Errors
    /// A status of the shim, or no answer.
    pub fn call(
        &self,
        (service, method): (&str, &str),
        message: Vec<u8>,
        deadline: Option<Duration>,
        patience: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let (sender, receiver) = mpsc::channel();
        {
            let mut writer = self.writer.lock().unwrap();
            let stream = writer.1;
            writer.1 += 2;
            match self.waiting.lock().unwrap().as_mut() {
                Some(waiting) => waiting.insert(stream, sender),
                None => return Err(CallError::Closed),
            };
            let nanos = deadline.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap());
            let frame = wire::request(stream, service, method, nanos, message);
            if writer.0.write_all(&frame.encode()).is_err() {
                return Err(CallError::Closed);
            }
        }
        let response = match receiver.recv_timeout(patience) {
            Ok(answer) => answer?,
            Err(mpsc::RecvTimeoutError::Timeout) => return Err(CallError::Timeout),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Err(CallError::Closed),
        };
        match response.status.as_ref() {
            Some(status) if status.code() != Code::OK => Err(CallError::Status {
                code: status.code(),
                message: status.message.clone(),
            }),
            _ => Ok(response.payload),
        }
    }

    /// Ends the connection at once, as a client does that dies.
    pub fn hang_up(&self) {
        // An error means that the other side was quicker.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.hang_up();
    }
}

fn read_responses(mut reader: UnixStream, waiting: &Waiting) {
    while let Ok(frame) = Frame::read(&mut reader) {
        let sender = waiting
            .lock()
            .unwrap()
            .as_mut()
            .and_then(|w| w.remove(&frame.stream));
        let Some(sender) = sender else { continue };
        let answer = if frame.kind == wire::TYPE_RESPONSE {
            Response::parse_from_bytes(&frame.payload).map_err(|_| CallError::Closed)
        } else {
            Err(CallError::Closed)
        };
        // The caller may have given up already.
        let _ = sender.send(answer);
    }
    // Dropping the senders tells every waiting call that the connection is gone.
    waiting.lock().unwrap().take();
}

/// The task service of one shim, over one connection that clones share.
#[derive(Clone, Debug)]
pub struct TaskClient {
    connection: Arc<Connection>,
    path: PathBuf,
    service: String,
    deadline: Option<Duration>,
    patience: Duration,
}

impl TaskClient {
    /// Connects to the socket at `path` and speaks `service` ([`TASK_V2`] or [`TASK_V3`]).
    ///
    /// # Errors
    /// What connect(2) says.
    pub fn connect(path: &Path, service: &str) -> std::io::Result<Self> {
        Ok(Self {
            connection: Arc::new(Connection::open(path)?),
            path: path.to_owned(),
            service: service.to_owned(),
            deadline: None,
            patience: Duration::from_secs(25),
        })
    }

    /// The same service over a connection of its own.
    pub fn another(&self) -> Self {
        Self {
            connection: Arc::new(Connection::open(&self.path).expect("the shim still listens")),
            ..self.clone()
        }
    }

    /// The same connection with another service name.
    pub fn service(&self, service: &str) -> Self {
        Self {
            service: service.to_owned(),
            ..self.clone()
        }
    }

    /// The same connection, whose calls carry `deadline` and are given up by then.
    pub fn deadline(&self, deadline: Duration) -> Self {
        Self {
            deadline: Some(deadline),
            patience: deadline,
            ..self.clone()
        }
    }

    /// The same connection, whose calls wait up to `patience` without telling the shim.
    pub fn patience(&self, patience: Duration) -> Self {
        Self {
            patience,
            ..self.clone()
        }
    }

    /// The name of the service that this client speaks.
    pub fn service_name(&self) -> &str {
        &self.service
    }

    /// Ends the connection under all clones, as a client does that dies.
    pub fn hang_up(&self) {
        self.connection.hang_up();
    }

    /// Any method by name.
    ///
    /// # Errors
    /// A status of the shim, or no answer.
    pub fn call<O: Message>(&self, method: &str, message: &impl Message) -> Result<O, CallError> {
        let bytes = message.write_to_bytes().expect("requests encode");
        let answer =
            self.connection
                .call((&self.service, method), bytes, self.deadline, self.patience)?;
        Ok(O::parse_from_bytes(&answer).expect("the answer is a message of its method"))
    }

    /// Any method with any bytes as its message, also bytes that are no message.
    ///
    /// # Errors
    /// A status of the shim, or no answer.
    pub fn call_raw(&self, method: &str, message: Vec<u8>) -> Result<Vec<u8>, CallError> {
        self.connection.call(
            (&self.service, method),
            message,
            self.deadline,
            self.patience,
        )
    }

    /// Runs a call in a thread of its own, for calls that wait.
    pub fn spawn<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let client = self.clone();
        thread::spawn(move || call(&client))
    }
}

/// One method per call: what goes in is what the message carries, what comes out is the answer.
#[expect(
    clippy::missing_errors_doc,
    reason = "each call fails with the status the shim sent"
)]
#[expect(
    missing_docs,
    reason = "the names and fields are those of the task service"
)]
impl TaskClient {
    pub fn create(&self, request: &CreateTaskRequest) -> Result<CreateTaskResponse, CallError> {
        self.call("Create", request)
    }

    pub fn start(&self, id: &str, exec: &str) -> Result<StartResponse, CallError> {
        let mut request = StartRequest::new();
        request.id = id.to_owned();
        request.exec_id = exec.to_owned();
        self.call("Start", &request)
    }

    pub fn state(&self, id: &str, exec: &str) -> Result<StateResponse, CallError> {
        let mut request = StateRequest::new();
        request.id = id.to_owned();
        request.exec_id = exec.to_owned();
        self.call("State", &request)
    }

    pub fn delete(&self, id: &str, exec: &str) -> Result<DeleteResponse, CallError> {
        let mut request = DeleteRequest::new();
        request.id = id.to_owned();
        request.exec_id = exec.to_owned();
        self.call("Delete", &request)
    }

    pub fn wait(&self, id: &str, exec: &str) -> Result<WaitResponse, CallError> {
        let mut request = WaitRequest::new();
        request.id = id.to_owned();
        request.exec_id = exec.to_owned();
        self.call("Wait", &request)
    }

    pub fn kill(&self, id: &str, exec: &str, signal: u32, all: bool) -> Result<Empty, CallError> {
        let mut request = KillRequest::new();
        request.id = id.to_owned();
        request.exec_id = exec.to_owned();
        request.signal = signal;
        request.all = all;
        self.call("Kill", &request)
    }

    pub fn exec(&self, request: &ExecProcessRequest) -> Result<Empty, CallError> {
        self.call("Exec", request)
    }

    pub fn pids(&self, id: &str) -> Result<PidsResponse, CallError> {
        let mut request = PidsRequest::new();
        request.id = id.to_owned();
        self.call("Pids", &request)
    }

    pub fn stats(&self, id: &str) -> Result<StatsResponse, CallError> {
        let mut request = StatsRequest::new();
        request.id = id.to_owned();
        self.call("Stats", &request)
    }

    pub fn pause(&self, id: &str) -> Result<Empty, CallError> {
        let mut request = PauseRequest::new();
        request.id = id.to_owned();
        self.call("Pause", &request)
    }

    pub fn resume(&self, id: &str) -> Result<Empty, CallError> {
        let mut request = ResumeRequest::new();
        request.id = id.to_owned();
        self.call("Resume", &request)
    }

    pub fn update(&self, id: &str, resources: &serde_json::Value) -> Result<Empty, CallError> {
        let mut request = UpdateTaskRequest::new();
        request.id = id.to_owned();
        request.resources = protobuf::MessageField::some(crate::bundle::json_any(
            "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources",
            resources,
        ));
        self.call("Update", &request)
    }

    pub fn close_io(&self, id: &str, exec: &str) -> Result<Empty, CallError> {
        let mut request = CloseIORequest::new();
        request.id = id.to_owned();
        request.exec_id = exec.to_owned();
        request.stdin = true;
        self.call("CloseIO", &request)
    }

    pub fn resize(&self, id: &str, exec: &str, w: u32, h: u32) -> Result<Empty, CallError> {
        let mut request = ResizePtyRequest::new();
        request.id = id.to_owned();
        request.exec_id = exec.to_owned();
        request.width = w;
        request.height = h;
        self.call("ResizePty", &request)
    }

    pub fn checkpoint(&self, id: &str, path: &Path) -> Result<Empty, CallError> {
        let mut request = CheckpointTaskRequest::new();
        request.id = id.to_owned();
        request.path = path.display().to_string();
        self.call("Checkpoint", &request)
    }

    pub fn connect_task(&self, id: &str) -> Result<ConnectResponse, CallError> {
        let mut request = ConnectRequest::new();
        request.id = id.to_owned();
        self.call("Connect", &request)
    }

    pub fn shutdown(&self, id: &str) -> Result<Empty, CallError> {
        let mut request = ShutdownRequest::new();
        request.id = id.to_owned();
        self.call("Shutdown", &request)
    }
}
