//! Questions and small commands that are answered at once, whatever is in flight.

use task_api::status::Refusal;

use super::{CallId, Container, Effect, Operation, Reply, Run, StateReply, Status, Target};
use crate::process::{ExecState, InitState, Phase, no_such_process};

impl Container {
    pub(super) fn state(&self, call: CallId, target: &Target, out: &mut Vec<Effect>) {
        let reply = match target {
            Target::Init => Ok(StateReply {
                id: self.id.clone(),
                pid: self.init.pid(),
                status: self.init_status(),
                io: self.io.clone(),
                exit: self.init.exit(),
            }),
            Target::Exec(id) => match self.execs.get(id) {
                None => Err(no_such_process(id)),
                Some(exec) => Ok(StateReply {
                    id: id.clone(),
                    pid: exec.state.pid(),
                    status: self.exec_status(&exec.state),
                    io: exec.io.clone(),
                    exit: exec.state.exit(),
                }),
            },
        };
        out.push(Effect::Reply(call, reply.map(Reply::State)));
    }

    fn init_status(&self) -> Status {
        match &self.init {
            InitState::Creating | InitState::FromCheckpoint => Status::Created,
            InitState::Stopped { .. } => Status::Stopped,
            InitState::Alive { .. } if matches!(self.operation, Some(Operation::Pause(_))) => {
                Status::Pausing
            }
            InitState::Alive {
                phase: Phase::Created,
                ..
            } => Status::Created,
            InitState::Alive {
                phase: Phase::Running,
                ..
            } => Status::Running,
            InitState::Alive {
                phase: Phase::Paused,
                ..
            } => Status::Paused,
        }
    }

    /// A live exec of a frozen container is frozen, too, and says so.
    fn exec_status(&self, state: &ExecState) -> Status {
        match (state, self.init_status()) {
            (ExecState::Stopped { .. }, _) => Status::Stopped,
            (_, status @ (Status::Paused | Status::Pausing)) => status,
            (ExecState::Added | ExecState::Starting, _) => Status::Created,
            (ExecState::Running { .. }, _) => Status::Running,
        }
    }

    /// The ids and pids of live execs, by which a list of pids is annotated.
    pub fn exec_pids(&self) -> Vec<(String, i32)> {
        self.execs
            .iter()
            .filter(|(_, exec)| matches!(exec.state, ExecState::Running { .. }))
            .map(|(id, exec)| (id.clone(), exec.state.pid()))
            .collect()
    }

    /// The pid that init has, or had until it ended; none of a container that never had one.
    pub fn init_pid(&self) -> Option<i32> {
        match self.init {
            InitState::Alive { pid, .. } | InitState::Stopped { pid, .. } => Some(pid),
            InitState::Creating | InitState::FromCheckpoint => None,
        }
        .filter(|pid| *pid != 0)
    }

    pub(super) fn pids(&mut self, call: CallId, out: &mut Vec<Effect>) {
        let by_kernel = self.facts.is_some_and(|facts| facts.runtime_is_known);
        // A container without a process has no pids, and crun's `ps` dies of asking.
        let none = !matches!(self.init, InitState::Alive { .. });
        out.push(if by_kernel || none {
            Effect::ReadPids(call)
        } else {
            self.asking_runtime.insert(call);
            Effect::Run(Run::Ps { call })
        });
    }

    pub(super) fn close_io(&self, call: CallId, target: &Target, out: &mut Vec<Effect>) {
        if let Err(refusal) = self.known(target) {
            out.push(Effect::Reply(call, Err(refusal)));
            return;
        }
        out.push(Effect::CloseStdin(target.clone()));
        out.push(Effect::Reply(call, Ok(Reply::Empty)));
    }

    pub(super) fn resize(
        &self,
        call: CallId,
        target: Target,
        width: u16,
        height: u16,
        out: &mut Vec<Effect>,
    ) {
        let stopped = match &target {
            Target::Init => false,
            Target::Exec(id) => self
                .execs
                .get(id)
                .is_some_and(|exec| exec.state.exit().is_some()),
        };
        if let Err(refusal) = self.known(&target) {
            out.push(Effect::Reply(call, Err(refusal)));
        } else if stopped {
            let refusal = Refusal::unknown("cannot resize a stopped container");
            out.push(Effect::Reply(call, Err(refusal)));
        } else {
            out.push(Effect::Resize {
                call,
                target,
                width,
                height,
            });
        }
    }

    fn known(&self, target: &Target) -> Result<(), Refusal> {
        match target {
            Target::Exec(id) if !self.execs.contains_key(id) => Err(no_such_process(id)),
            Target::Init | Target::Exec(_) => Ok(()),
        }
    }

    /// One line for the dump that SIGUSR1 asks for: state, operation in flight, execs, waiters.
    pub fn describe(&self) -> String {
        let execs: Vec<String> = self
            .execs
            .iter()
            .map(|(id, exec)| {
                let waiters = exec.waiters.len();
                format!(
                    "{id}: {:?} drained={} waiters={waiters}",
                    exec.state, exec.drained
                )
            })
            .collect();
        format!(
            "container {}: {:?} creation={:?} operation={:?} queued={} waiters={} drained={} \
             execs=[{}] exec_tombstones={}",
            self.id,
            self.init,
            self.creation,
            self.operation,
            self.queue.len(),
            self.waiters.len(),
            self.drained,
            execs.join(", "),
            self.exec_tombstones.len(),
        )
    }
}
