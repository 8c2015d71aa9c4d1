//! Exits and their order: an exec's exit before its init's, start before exit, OOM before exit,
//! nothing after delete; and the bounds on how long init's exit is held back (DESIGN rules 4, 5).

use super::{CallId, Container, Effect, Event, Operation, Reply, Run, Step, Target, Timer};
use crate::process::{Exit, InitState, Phase};

impl Container {
    pub(super) fn exited(&mut self, target: &Target, exit: Exit, out: &mut Vec<Effect>) {
        let id = match target {
            Target::Exec(id) => return self.exec_exited(id, exit, out),
            Target::Init => &self.id,
        };
        let InitState::Alive { phase, died, .. } = &mut self.init else {
            return;
        };
        if died.is_some() {
            out.push(Effect::Log(format!("init of {id} exited twice")));
            return;
        }
        *died = Some(exit);
        if *phase == Phase::Paused {
            // What is frozen on cgroup v1 does not die of SIGKILL.
            out.push(Effect::Run(Run::Thaw));
        }
        if self.facts.is_some_and(|facts| !facts.private_pid_namespace) && !self.is_deleting() {
            // No PID namespace ends with init: what it left behind is killed.
            self.killing_rest = true;
            out.push(Effect::Run(Run::KillRest));
        }
        self.settle(out);
        if matches!(self.init, InitState::Alive { .. }) {
            out.push(Effect::Arm(Timer::StopRuns));
            out.push(Effect::Arm(Timer::PublishAnyway));
        } else if self.operating().is_some() {
            // It holds nothing but the Delete that will wait in line behind it.
            out.push(Effect::Arm(Timer::StopRuns));
        }
    }

    fn is_deleting(&self) -> bool {
        matches!(self.operation, Some(Operation::Delete(..)))
    }

    /// Publishes init's exit once nothing holds it back any more.
    pub(super) fn settle(&mut self, out: &mut Vec<Effect>) {
        let InitState::Alive {
            pid,
            died: Some(exit),
            ..
        } = self.init
        else {
            return;
        };
        let starting = matches!(self.operation, Some(Operation::Start(_)));
        let held = self.killing_rest
            || starting
            || self.execs.values().any(|exec| exec.state.holds_init());
        if held && !self.publish_anyway {
            return;
        }
        if held {
            out.push(Effect::Log(format!(
                "exit of {} published although it is still held: starting={starting}, execs={:?}",
                self.id,
                self.execs
                    .iter()
                    .filter(|(_, exec)| exec.state.holds_init())
                    .map(|(id, _)| id)
                    .collect::<Vec<_>>()
            )));
        }
        if self.operating().is_none() {
            out.push(Effect::Disarm(Timer::StopRuns));
        }
        out.push(Effect::Disarm(Timer::PublishAnyway));
        self.init = InitState::Stopped { pid, exit };
        out.push(Effect::Publish(Event::Exit {
            target: Target::Init,
            pid,
            exit,
        }));
        for call in std::mem::take(&mut self.waiters) {
            out.push(Effect::Reply(call, Ok(Reply::Exit(exit))));
        }
        self.exit_published(out);
        self.advance(out);
    }

    /// Init has been dead for long: what still runs on its account is killed. The end of each
    /// run comes as usual and releases what it held.
    pub(super) fn stop_runs(&mut self, out: &mut Vec<Effect>) {
        out.extend(self.exec_steps().map(Effect::KillRun));
        out.extend(self.operating().map(Effect::KillRun));
        if self.killing_rest {
            out.push(Effect::KillRun(Step::KillRest));
        }
    }

    /// The run of the operation in flight, a Delete's excepted: that has a limit of its own.
    fn operating(&self) -> Option<Step> {
        match self.operation {
            Some(Operation::Start(_)) => Some(Step::Start),
            Some(Operation::Pause(_)) => Some(Step::Pause),
            Some(Operation::Resume(_)) => Some(Step::Resume),
            Some(Operation::Update(_)) => Some(Step::Update),
            Some(Operation::Checkpoint(_)) => Some(Step::Checkpoint),
            Some(Operation::Delete(..)) | None => None,
        }
    }

    pub(super) fn oom(&mut self, out: &mut Vec<Effect>) {
        // Nothing comes after an exit that is published.
        if matches!(self.init, InitState::Alive { .. }) {
            out.push(Effect::Publish(Event::Oom));
        }
    }

    pub(super) fn has_drained(&mut self, target: &Target, out: &mut Vec<Effect>) {
        match target {
            Target::Init => {
                self.drained = true;
                self.drain_over(out);
            }
            Target::Exec(id) => {
                if let Some(exec) = self.execs.get_mut(id) {
                    exec.drained = true;
                }
                self.exec_drain_over(id, out);
            }
        }
    }

    /// Answers when the process has ended; at once if it has.
    pub(super) fn wait(&mut self, call: CallId, target: &Target, out: &mut Vec<Effect>) {
        let (exit, waiters) = match target {
            Target::Init => (self.init.exit(), &mut self.waiters),
            Target::Exec(id) => match self.execs.get_mut(id) {
                Some(exec) => (exec.state.exit(), &mut exec.waiters),
                None => {
                    let refusal = crate::process::no_such_process(id);
                    out.push(Effect::Reply(call, Err(refusal)));
                    return;
                }
            },
        };
        match exit {
            Some(exit) => out.push(Effect::Reply(call, Ok(Reply::Exit(exit)))),
            None => waiters.push(call),
        }
    }
}
