//! The lifecycle operations on init: start, pause, resume, update, checkpoint, kill and delete.
//! One is in flight at a time, the others wait in line and meet the state they then find.

use task_api::status::Refusal;

use super::{
    CallId, Command, Container, Deletion, Effect, Event, Operation, Reply, Run, RunFailure, Target,
    Timer, never_ran,
};
use crate::process::{Exit, InitOperation, InitState, Phase};

impl Container {
    pub(super) fn enqueue(&mut self, call: CallId, command: Command, out: &mut Vec<Effect>) {
        // A second Delete joins the one in flight, so that both get the same answer.
        if let (Some(Operation::Delete(calls, _)), Command::Delete(Target::Init)) =
            (&mut self.operation, &command)
        {
            calls.push(call);
            return;
        }
        self.queue.push_back((call, command));
        self.advance(out);
    }

    /// Begins the operations in line until one is in flight.
    pub(super) fn advance(&mut self, out: &mut Vec<Effect>) {
        while self.operation.is_none() {
            let Some((call, command)) = self.queue.pop_front() else {
                return;
            };
            let operation = match &command {
                Command::Start(_) => InitOperation::Start,
                Command::Pause => InitOperation::Pause,
                Command::Resume => InitOperation::Resume,
                Command::Update(_) => InitOperation::Update,
                Command::Checkpoint(_) => InitOperation::Checkpoint,
                _ => InitOperation::Delete,
            };
            if let Err(refusal) = self.init.check(operation) {
                out.push(Effect::Reply(call, Err(refusal)));
                continue;
            }
            self.begin(call, command, out);
        }
    }

    fn begin(&mut self, call: CallId, command: Command, out: &mut Vec<Effect>) {
        self.operation = Some(match command {
            Command::Start(_) => {
                out.push(if self.init == InitState::FromCheckpoint {
                    // A restore that failed before has drained its own.
                    self.drained = false;
                    Effect::OpenStdio(Target::Init)
                } else {
                    Effect::Run(Run::Start)
                });
                Operation::Start(call)
            }
            Command::Pause => {
                out.push(Effect::Run(Run::Pause));
                Operation::Pause(call)
            }
            Command::Resume => {
                out.push(Effect::Run(Run::Resume));
                Operation::Resume(call)
            }
            Command::Update(resources) => {
                out.push(Effect::Run(Run::Update(resources)));
                Operation::Update(call)
            }
            Command::Checkpoint(request) => {
                out.push(Effect::Run(Run::Checkpoint(request)));
                Operation::Checkpoint(call)
            }
            _ => {
                // What a restore that failed has left may still run.
                let force = self.init == InitState::FromCheckpoint;
                out.push(Effect::Arm(Timer::StopDelete));
                out.push(Effect::Run(Run::Delete { force }));
                Operation::Delete(vec![call], Deletion::Runtime)
            }
        });
    }

    pub(super) fn restore_stdio_opened(
        &mut self,
        result: Result<(), Refusal>,
        out: &mut Vec<Effect>,
    ) {
        match result {
            Ok(()) => out.push(Effect::Run(Run::Restore)),
            Err(refusal) => {
                if let Some(Operation::Start(call)) = self.operation.take() {
                    out.push(Effect::Reply(call, Err(refusal)));
                }
                self.advance(out);
            }
        }
    }

    pub(super) fn start_ran(
        &mut self,
        result: Result<Option<i32>, RunFailure>,
        out: &mut Vec<Effect>,
    ) {
        let Some(Operation::Start(call)) = self.operation.take() else {
            return;
        };
        match result {
            // The exit was published while the runtime hung: no start comes after it.
            Ok(_) if matches!(self.init, InitState::Stopped { .. }) => {
                let text = format!("container {} init process is not running", self.id);
                out.push(Effect::Reply(call, Err(Refusal::failed_precondition(text))));
            }
            Ok(restored) => {
                if let Some(pid) = restored.filter(|_| self.init == InitState::FromCheckpoint) {
                    self.init = InitState::Alive {
                        pid,
                        phase: Phase::Running,
                        died: None,
                    };
                    out.push(Effect::WatchOom);
                } else if let InitState::Alive { phase, .. } = &mut self.init {
                    *phase = Phase::Running;
                }
                let pid = self.init.pid();
                out.push(Effect::Publish(Event::Start { pid }));
                out.push(Effect::Reply(call, Ok(Reply::Pid(pid))));
            }
            Err(failure) => out.push(Effect::Reply(call, Err(failure.refusal))),
        }
        // An exit that overtook the end of `runc start` was held back until the start was told.
        self.settle(out);
        self.advance(out);
    }

    /// Pause, Resume, Update or Checkpoint is over.
    pub(super) fn operation_ran(&mut self, result: Result<(), RunFailure>, out: &mut Vec<Effect>) {
        let Some(operation) = self.operation.take() else {
            return;
        };
        let (call, phase, event) = match operation {
            Operation::Pause(call) => (call, Some(Phase::Paused), Some(Event::Paused)),
            Operation::Resume(call) => (call, Some(Phase::Running), Some(Event::Resumed)),
            Operation::Update(call) => (call, None, None),
            // The daemon itself publishes /tasks/checkpointed.
            Operation::Checkpoint(call) => (call, None, None),
            Operation::Start(_) | Operation::Delete(..) => {
                self.operation = Some(operation);
                return;
            }
        };
        if let (Some(Phase::Paused), InitState::Alive { died: Some(_), .. }) = (phase, &self.init) {
            // What is frozen now, wholly or half, is what init left behind: it could not die.
            out.push(Effect::Run(Run::Thaw));
        }
        match result {
            Ok(()) => {
                if let (InitState::Alive { phase: current, .. }, Some(phase)) =
                    (&mut self.init, phase)
                {
                    *current = phase;
                    // A stopped container is neither paused nor resumed.
                    out.extend(event.map(Effect::Publish));
                }
                out.push(Effect::Reply(call, Ok(Reply::Empty)));
            }
            Err(failure) => out.push(Effect::Reply(call, Err(failure.refusal))),
        }
        self.settle(out);
        self.advance(out);
    }

    /// A signal for init. The kernel delivers it where its meaning is the runtime's own (DESIGN
    /// rule 7): a live, unfrozen process of a known runtime in a PID namespace of its own.
    pub(super) fn kill_init(
        &mut self,
        call: CallId,
        signal: i32,
        all: bool,
        out: &mut Vec<Effect>,
    ) {
        let by_kernel = self
            .facts
            .is_some_and(|facts| facts.private_pid_namespace && facts.runtime_is_known);
        match &self.init {
            InitState::Creating | InitState::FromCheckpoint => {
                out.push(Effect::Reply(
                    call,
                    Err(Refusal::failed_precondition("process not created")),
                ));
            }
            InitState::Alive {
                phase: Phase::Created | Phase::Running,
                died: None,
                ..
            } if by_kernel && !all && !self.is_freezing() => {
                out.push(Effect::Signal {
                    call,
                    target: Target::Init,
                    signal,
                });
            }
            InitState::Alive { died: Some(_), .. } | InitState::Stopped { .. } if !all => {
                out.push(Effect::Reply(call, Err(already_finished())));
            }
            InitState::Alive { .. } | InitState::Stopped { .. } => {
                self.asking_runtime.insert(call);
                out.push(Effect::Run(Run::Kill { call, signal, all }));
            }
        }
    }

    /// A pause or a resume is under way: the container may be frozen already or still.
    pub(super) fn is_freezing(&self) -> bool {
        matches!(
            self.operation,
            Some(Operation::Pause(_) | Operation::Resume(_))
        )
    }

    pub(super) fn delete_ran(&mut self, result: Result<(), RunFailure>, out: &mut Vec<Effect>) {
        let Some(Operation::Delete(calls, Deletion::Runtime)) = self.operation.take() else {
            return;
        };
        out.push(Effect::Disarm(Timer::StopDelete));
        match result {
            Err(failure) if !failure.container_gone => {
                for call in calls {
                    out.push(Effect::Reply(call, Err(failure.refusal.clone())));
                }
                self.settle(out);
                self.advance(out);
            }
            _ => self.after_runtime_delete(calls, out),
        }
    }

    fn after_runtime_delete(&mut self, calls: Vec<CallId>, out: &mut Vec<Effect>) {
        if self.facts.is_some_and(|facts| facts.mounted) {
            out.push(Effect::Unmount);
            self.operation = Some(Operation::Delete(calls, Deletion::Unmount));
        } else {
            self.await_exit(calls, out);
        }
    }

    pub(super) fn delete_unmounted(&mut self, result: Result<(), String>, out: &mut Vec<Effect>) {
        let Some(Operation::Delete(calls, Deletion::Unmount)) = self.operation.take() else {
            return;
        };
        match result {
            Ok(()) => self.await_exit(calls, out),
            Err(error) => {
                let refusal = Refusal::unknown(format!("failed rootfs umount: {error}"));
                for call in calls {
                    out.push(Effect::Reply(call, Err(refusal.clone())));
                }
                self.advance(out);
            }
        }
    }

    /// Deleting a created container kills its init: the exit must be told before the delete.
    fn await_exit(&mut self, calls: Vec<CallId>, out: &mut Vec<Effect>) {
        if matches!(self.init, InitState::Alive { .. }) {
            out.push(Effect::Arm(Timer::AwaitExit));
            self.operation = Some(Operation::Delete(calls, Deletion::Exit));
            self.settle(out);
        } else {
            self.await_drain(calls, out);
        }
    }

    /// Called when init's exit is published.
    pub(super) fn exit_published(&mut self, out: &mut Vec<Effect>) {
        if let Some(Operation::Delete(calls, Deletion::Exit)) = &mut self.operation {
            let calls = std::mem::take(calls);
            out.push(Effect::Disarm(Timer::AwaitExit));
            self.await_drain(calls, out);
        }
    }

    /// The runtime says that the container is deleted and yet init does not die: its exit is
    /// made up, so that whoever waits is told.
    pub(super) fn exit_overdue(&mut self, out: &mut Vec<Effect>) {
        if matches!(self.operation, Some(Operation::Delete(_, Deletion::Exit))) {
            out.push(Effect::Log(format!(
                "init of {} outlives its container",
                self.id
            )));
            let exit = Exit {
                status: 137,
                at: self.now,
            };
            self.publish_anyway = true;
            if let InitState::Alive { died, .. } = &mut self.init {
                died.get_or_insert(exit);
            }
            self.settle(out);
        }
    }

    fn await_drain(&mut self, calls: Vec<CallId>, out: &mut Vec<Effect>) {
        if self.drained || self.init == InitState::FromCheckpoint {
            self.deleted(calls, out);
        } else {
            out.push(Effect::Arm(Timer::Drain(Target::Init)));
            self.operation = Some(Operation::Delete(calls, Deletion::Drain));
        }
    }

    pub(super) fn drain_over(&mut self, out: &mut Vec<Effect>) {
        if let Some(Operation::Delete(calls, Deletion::Drain)) = &mut self.operation {
            let calls = std::mem::take(calls);
            out.push(Effect::Disarm(Timer::Drain(Target::Init)));
            self.deleted(calls, out);
        }
    }

    fn deleted(&mut self, calls: Vec<CallId>, out: &mut Vec<Effect>) {
        let (pid, exit) = (self.init.pid(), self.init.exit().unwrap_or_else(never_ran));
        self.deleted_with(calls, pid, exit, out);
    }

    /// The container is deleted: tell the daemon, the callers, and whoever else still waits.
    pub(super) fn deleted_with(
        &mut self,
        calls: Vec<CallId>,
        pid: i32,
        exit: Exit,
        out: &mut Vec<Effect>,
    ) {
        // What was never announced is not taken back.
        if self.announced {
            out.push(Effect::Publish(Event::Delete { pid, exit }));
        }
        for call in calls {
            out.push(Effect::Reply(call, Ok(Reply::Deleted { pid, exit })));
        }
        self.operation = None;
        self.release_everybody(exit, out);
        out.push(Effect::Forget(Some((pid, exit))));
    }

    /// The end of the container: whoever still waits for anything of it is answered.
    fn release_everybody(&mut self, exit: Exit, out: &mut Vec<Effect>) {
        for call in std::mem::take(&mut self.waiters) {
            out.push(Effect::Reply(call, Ok(Reply::Exit(exit))));
        }
        let queued = std::mem::take(&mut self.queue)
            .into_iter()
            .map(|(call, _)| call);
        for call in queued.chain(std::mem::take(&mut self.asking_runtime)) {
            out.push(Effect::Reply(call, Err(crate::process::not_created())));
        }
        out.push(Effect::Release(Target::Init));
        for (id, exec) in std::mem::take(&mut self.execs) {
            let exec_exit = exec.state.exit().unwrap_or(exit);
            for call in exec.waiters {
                out.push(Effect::Reply(call, Ok(Reply::Exit(exec_exit))));
            }
            for call in exec.deleting {
                let pid = exec.state.pid();
                out.push(Effect::Reply(
                    call,
                    Ok(Reply::Deleted {
                        pid,
                        exit: exec_exit,
                    }),
                ));
            }
            if let Some(call) = exec.starting {
                out.push(Effect::Reply(call, Err(crate::process::not_created())));
            }
            out.push(Effect::Release(Target::Exec(id)));
        }
    }
}

/// The refusal for a signal to a process that has ended, in the words clients match.
pub(super) fn already_finished() -> Refusal {
    Refusal::not_found("process already finished")
}
