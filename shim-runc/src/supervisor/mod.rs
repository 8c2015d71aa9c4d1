//! The loop of a serving shim and the sole owner of its state (DESIGN rule 1): takes one input
//! after the other, lets the rules of the container decide, carries out what they say.
//!
//! `ledger.rs` knows whose exit an exit is, `host.rs` holds what a container has of the kernel,
//! `runs.rs` starts the runtime and reads how it ended, `effects.rs` carries out effects,
//! `prepare.rs` is what Create does in a helper.

mod effects;
mod events;
mod host;
mod ledger;
mod prepare;
mod runs;
mod shutdown;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use shim_common::publisher::Publisher;
use shim_common::reaper::{ExitNotice, Notice, Reaper};
use shim_common::server::Server;
use shim_common::stdio::{Master, Opened, Relay, StdioError};
use task_api::status::Refusal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::allocator;
use crate::container::{CallId, Command, Container, Exit, Input, Reply, Step, Target, Timer};
use crate::flavor::Flavor;
use crate::manager::ServeArgs;
use crate::process::not_created;
use crate::service::{Answer, CreateRequest, Request, Service};
use host::{Environment, Host};
use ledger::{Ledger, Owner};
use shutdown::OwnSocket;

/// A shim that nobody needs ends itself after this long (DESIGN rule 11).
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// After how many operations freed memory is given back; it takes some ten microseconds.
const TIDY_EVERY: u32 = 32;

/// The exit status of a process whose own nobody can know, as containerd has it.
const STATUS_UNKNOWN: u32 = 255;

/// How many deleted containers are remembered, so that a late Delete gets its answer again. Only a
/// shim with a group of containers can ever delete more than one.
pub(crate) const TOMBSTONES: usize = 64;

/// Names one life of a container: an id may come back after a delete, a key never does.
pub(crate) type Key = u64;

/// What a caller gets back: the answer and the bundle's path, which State echoes.
pub(crate) type Outcome = Result<(Answer, String), Refusal>;

/// What comes to the loop from the tasks around it.
pub(crate) enum Message {
    /// A client's request.
    Call(CallId, Request, oneshot::Sender<Outcome>),
    /// The client of this call has gone.
    CallGone(CallId),
    /// Something happened to a container.
    Input(Key, Input),
    /// The stdio of a process is open.
    StdioOpened(Key, Target, Result<Box<Opened>, StdioError>),
    /// The terminal of a process has arrived, or will never.
    Console(Key, Step, Target, Result<Master, String>),
    /// A helper answers a call.
    Answered(CallId, Result<Answer, Refusal>),
    /// The relay of this number has delivered everything.
    Drained(u64),
    /// A process that is no child of ours has ended; nobody can know how.
    Vanished(Key, Target),
    /// The OOM counter of the container's cgroup may have grown.
    OomCounter(Key),
}

/// Everything the shim knows.
pub(crate) struct Supervisor {
    flavor: Flavor,
    namespace: String,
    environment: Environment,
    containers: BTreeMap<Key, Entry>,
    ids: HashMap<String, Key>,
    next_key: Key,
    calls: HashMap<CallId, PendingCall>,
    ledger: Ledger,
    /// Answers for a late Delete of a container that is gone (DESIGN rule 11).
    tombstones: VecDeque<(String, i32, Exit)>,
    /// Relays of deleted processes that still deliver output.
    lingering: HashMap<u64, Relay>,
    /// Whose output each relay carries, by its number.
    relay_owners: HashMap<u64, (Key, Target)>,
    next_relay: u64,
    publisher: Publisher,
    sender: mpsc::UnboundedSender<Message>,
    /// Inputs that carrying out an effect brought about; they are handled before any message.
    inbox: VecDeque<(Key, Input)>,
    socket: Option<OwnSocket>,
    /// Shutdowns that wait for creations to be undone.
    shutting_down: Vec<CallId>,
    /// Operations over since freed memory was last given back.
    untidy: u32,
    done: bool,
}

/// One container: what decides and what it has.
struct Entry {
    rules: Container,
    host: Host,
}

/// A call that waits for its answer.
struct PendingCall {
    reply: oneshot::Sender<Outcome>,
    bundle: String,
}

/// Serves until the shim is shut down. Returns what failed before serving could begin.
pub fn serve(args: ServeArgs) -> Result<(), String> {
    allocator::set_up();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("start the event loop: {error}"))?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, run(args))
}

async fn run(args: ServeArgs) -> Result<(), String> {
    let mut reaper = Reaper::new().map_err(|error| format!("watch children: {error}"))?;
    sys::process::become_subreaper().map_err(|error| format!("become subreaper: {error}"))?;
    let socket = OwnSocket::of(&args.listener);
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let mut supervisor = Supervisor::new(&args, sender.clone(), socket);
    let server = Server::start(args.listener, Service::new(sender))
        .map_err(|error| format!("serve: {error}"))?;
    let publisher = supervisor.publisher.clone();
    let mut unneeded_since: Option<Instant> = None;
    while !supervisor.done {
        unneeded_since = match supervisor.is_needed() {
            true => None,
            false => unneeded_since.or_else(|| Some(Instant::now())),
        };
        tokio::select! {
            notice = reaper.next() => match notice {
                Ok(Notice::Exit(notice)) => supervisor.exited(notice),
                Ok(Notice::Signal(signal)) => supervisor.signalled(signal),
                Err(error) => return Err(format!("reap children: {error}")),
            },
            Some(message) = receiver.recv() => supervisor.message(message),
            () = abandoned(&server, &publisher, unneeded_since) => {
                if server.connections() == 0 && publisher.depth() == 0 {
                    log::info!("nobody has needed this shim for {} s", IDLE_LIMIT.as_secs());
                    supervisor.done = true;
                }
            }
        }
        supervisor.settle_inbox();
        supervisor.tidy_up();
    }
    supervisor.shut_down(server).await;
    Ok(())
}

/// Returns when nobody has needed the shim for [`IDLE_LIMIT`]: the loop has nothing since then, no
/// event waits, and no client is connected. Costs nothing while it is needed.
async fn abandoned(server: &Server, publisher: &Publisher, unneeded_since: Option<Instant>) {
    let Some(mut since) = unneeded_since else {
        return std::future::pending().await;
    };
    if publisher.depth() > 0 || server.connections() > 0 {
        publisher.emptied().await;
        server.emptied().await;
        since = Instant::now();
    }
    tokio::time::sleep_until(since + IDLE_LIMIT).await;
}

impl Supervisor {
    fn new(
        args: &ServeArgs,
        sender: mpsc::UnboundedSender<Message>,
        socket: Option<OwnSocket>,
    ) -> Self {
        let environment: Vec<_> = std::env::vars_os()
            .filter(|(name, value)| name != "NOTIFY_SOCKET" && !allocator::is_ours(name, value))
            .collect();
        let sink = std::env::var_os("TTRPC_ADDRESS").filter(|address| !address.is_empty());
        Self {
            flavor: args.flavor,
            namespace: args.namespace.clone(),
            environment: Rc::new(environment),
            containers: BTreeMap::new(),
            ids: HashMap::new(),
            next_key: 1,
            calls: HashMap::new(),
            ledger: Ledger::default(),
            tombstones: VecDeque::new(),
            lingering: HashMap::new(),
            relay_owners: HashMap::new(),
            next_relay: 1,
            publisher: Publisher::new(sink.as_deref(), &args.namespace),
            sender,
            inbox: VecDeque::new(),
            socket,
            shutting_down: Vec::new(),
            untidy: 0,
            done: false,
        }
    }

    /// A container, call or output is left.
    fn is_needed(&self) -> bool {
        !(self.containers.is_empty() && self.calls.is_empty() && self.lingering.is_empty())
    }

    fn message(&mut self, message: Message) {
        match message {
            Message::Call(call, request, reply) => self.call(call, request, reply),
            Message::CallGone(call) => {
                self.calls.remove(&call);
                let keys: Vec<Key> = self.containers.keys().copied().collect();
                for key in keys {
                    self.input(key, Input::CallGone(call));
                }
            }
            Message::Input(key, input) => self.input(key, input),
            Message::StdioOpened(key, target, result) => {
                self.contain(key, |own| own.stdio_opened(key, target, result));
            }
            Message::Console(key, step, target, result) => {
                self.contain(key, |own| own.console_received(key, step, target, result));
            }
            Message::Answered(call, result) => self.answer(call, result),
            Message::Drained(number) => self.drained(number),
            Message::Vanished(key, target) => {
                let exit = Exit {
                    status: STATUS_UNKNOWN,
                    at: SystemTime::now(),
                };
                self.process_exited(key, target, None, exit);
            }
            Message::OomCounter(key) => {
                // An exit may have read the counter first.
                if self
                    .containers
                    .get_mut(&key)
                    .is_some_and(|entry| entry.host.new_ooms())
                {
                    self.input(key, Input::Oom);
                }
            }
        }
    }

    fn call(&mut self, call: CallId, request: Request, reply: oneshot::Sender<Outcome>) {
        let mut pending = PendingCall {
            reply,
            bundle: String::new(),
        };
        match request {
            Request::Create(request) => {
                self.calls.insert(call, pending);
                self.create(call, *request);
            }
            Request::Shutdown => {
                self.calls.insert(call, pending);
                self.shutdown_asked(call);
            }
            Request::Container(id, command) => {
                let key = self.key_of(&id);
                if let Some(entry) = key.and_then(|key| self.containers.get(&key)) {
                    pending.bundle = entry.host.bundle.to_string_lossy().into_owned();
                }
                self.calls.insert(call, pending);
                match (key, command) {
                    (None, Command::Connect) => {
                        let reply = Reply::Connect { pid: 0 };
                        self.answer(call, Ok(Answer::Rules(reply)));
                    }
                    (None, Command::Delete(Target::Init)) => {
                        let tombstone = self.tombstones.iter().find(|(gone, ..)| *gone == id);
                        let reply = tombstone
                            .map(|&(_, pid, exit)| Answer::Rules(Reply::Deleted { pid, exit }))
                            .ok_or_else(not_created);
                        self.answer(call, reply);
                    }
                    (key, command) => self.command(call, key, command),
                }
            }
        }
    }

    fn key_of(&self, id: &str) -> Option<Key> {
        self.ids.get(id).copied()
    }

    fn command(&mut self, call: CallId, key: Option<Key>, command: Command) {
        match key {
            Some(key) => self.input(key, Input::Command(call, command)),
            None => self.answer(call, Err(not_created())),
        }
    }

    fn create(&mut self, call: CallId, request: CreateRequest) {
        let in_use = self.ids.contains_key(&request.id);
        let full = !self.flavor.groups() && !self.containers.is_empty();
        if in_use || full {
            let refusal = Refusal::already_exists(format!("container {}", request.id));
            return self.answer(call, Err(refusal));
        }
        let host = Host::new(&request, &self.namespace, &self.environment);
        self.tombstones.retain(|(gone, ..)| *gone != request.id);
        let key = self.next_key;
        self.next_key += 1;
        self.ids.insert(request.id.clone(), key);
        let mut effects = Vec::new();
        let from_checkpoint = !request.checkpoint.is_empty();
        let rules = Container::create(request.id, request.io, from_checkpoint, call, &mut effects);
        self.containers.insert(key, Entry { rules, host });
        self.contain(key, |supervisor| supervisor.carry_out(key, effects));
    }

    /// Queues an input for a container; it is handled in its turn by `settle_inbox`.
    fn input(&mut self, key: Key, input: Input) {
        self.inbox.push_back((key, input));
    }

    fn settle_inbox(&mut self) {
        while let Some((key, input)) = self.inbox.pop_front() {
            self.handle(key, input);
        }
    }

    /// Lets the rules decide on one input and carries out what they say.
    fn handle(&mut self, key: Key, input: Input) {
        self.contain(key, |supervisor| {
            let Some(entry) = supervisor.containers.get_mut(&key) else {
                return;
            };
            let mut effects = Vec::new();
            entry.rules.handle(SystemTime::now(), input, &mut effects);
            supervisor.carry_out(key, effects);
        });
    }

    /// Keeps a panic with the container it concerns (DESIGN rule 9): that one breaks down, the
    /// others do not notice.
    fn contain(&mut self, key: Key, work: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| work(self))).is_ok() {
            return;
        }
        let mut effects = Vec::new();
        if let Some(entry) = self.containers.get_mut(&key) {
            let id = entry.rules.id();
            log::error!("container {id} is broken; it can be killed, waited for, deleted");
            entry.rules.break_down(SystemTime::now(), &mut effects);
        }
        if catch_unwind(AssertUnwindSafe(|| self.carry_out(key, effects))).is_err() {
            log::error!("the calls of a broken container could not be answered");
        }
    }

    /// A child was reaped: a run of the runtime, a process of a container, or an orphan.
    fn exited(&mut self, notice: ExitNotice) {
        log::debug!("process {} ended with status {}", notice.pid, notice.status);
        match self.ledger.exited(&notice) {
            Some(Owner::Run(key, step)) => {
                self.contain(key, |own| own.run_ended(key, step, notice.status));
            }
            Some(Owner::Process(key, target)) => {
                self.process_exited(key, target, Some(notice.pid), exit_of(&notice));
            }
            None => {}
        }
    }

    /// A process of a container is dead. OOM comes before its exit: the kernel counts before it
    /// kills, so the counter is read once more here (DESIGN rule 10).
    fn process_exited(&mut self, key: Key, target: Target, pid: Option<i32>, exit: Exit) {
        if let Some(entry) = self.containers.get_mut(&key) {
            entry.host.process_exited(&target);
            if entry.host.new_ooms_of(pid, exit.status) {
                self.input(key, Input::Oom);
            }
        }
        self.input(key, Input::Exited(target, exit));
    }

    /// Gives freed memory back to the kernel now and then: a burst of execs at once fills a heap
    /// that a quiet shim would keep for ever (ADR 0002).
    fn tidy_up(&mut self) {
        if self.untidy >= TIDY_EVERY {
            self.untidy = 0;
            allocator::trim();
        }
    }

    fn answer(&mut self, call: CallId, result: Result<Answer, Refusal>) {
        let Some(pending) = self.calls.remove(&call) else {
            return;
        };
        // A client that has gone does not read its answer.
        let _ = pending
            .reply
            .send(result.map(|answer| (answer, pending.bundle)));
    }

    fn arm(&mut self, key: Key, timer: Timer, after: Duration) {
        let sender = self.sender.clone();
        let message = Message::Input(key, Input::Timer(timer.clone()));
        let task = tokio::task::spawn_local(async move {
            tokio::time::sleep(after).await;
            // The loop ends before its channel does only when the shim ends.
            let _ = sender.send(message);
        });
        if let Some(entry) = self.containers.get_mut(&key) {
            entry.host.arm(timer, task.abort_handle());
        }
    }
}

/// The end that a child's notice tells.
fn exit_of(notice: &ExitNotice) -> Exit {
    Exit {
        status: notice.status,
        at: notice.exited_at,
    }
}
