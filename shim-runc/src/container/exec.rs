//! Exec processes: registered by Exec, started by Start, each on its own beside the others.

use task_api::status::Refusal;

use super::{
    CallId, Container, EXEC_TOMBSTONES, Effect, Event, Exec, IoPaths, Reply, Run, RunFailure, Step,
    Target, Timer, init::already_finished,
};
use crate::process::{ExecState, Exit, InitOperation, InitState, never_started, no_such_process};

impl Container {
    pub(super) fn add_exec(
        &mut self,
        call: CallId,
        id: String,
        io: IoPaths,
        spec: Vec<u8>,
        out: &mut Vec<Effect>,
    ) {
        if self.execs.contains_key(&id) {
            let refusal = Refusal::already_exists(format!("id {id}"));
            out.push(Effect::Reply(call, Err(refusal)));
            return;
        }
        if let Err(refusal) = self.init.check(InitOperation::Exec) {
            out.push(Effect::Reply(call, Err(refusal)));
            return;
        }
        self.exec_tombstones
            .retain(|(tombstone, ..)| *tombstone != id);
        let exec = Exec {
            state: ExecState::Added,
            io: io.clone(),
            waiters: Vec::new(),
            starting: None,
            deleting: Vec::new(),
            drained: false,
        };
        self.execs.insert(id.clone(), exec);
        out.push(Effect::KeepExec {
            id: id.clone(),
            io,
            spec,
        });
        out.push(Effect::Publish(Event::ExecAdded { id }));
        out.push(Effect::Reply(call, Ok(Reply::Empty)));
    }

    pub(super) fn start_exec(&mut self, call: CallId, id: &str, out: &mut Vec<Effect>) {
        let init_gone = !matches!(self.init, InitState::Alive { died: None, .. });
        let Some(exec) = self.execs.get_mut(id) else {
            out.push(Effect::Reply(call, Err(no_such_process(id))));
            return;
        };
        if let Err(refusal) = exec.state.check_start() {
            out.push(Effect::Reply(call, Err(refusal)));
        } else if init_gone {
            let text = format!("container {} init process is not running", self.id);
            out.push(Effect::Reply(call, Err(Refusal::failed_precondition(text))));
        } else {
            exec.state = ExecState::Starting;
            exec.starting = Some(call);
            out.push(Effect::OpenStdio(Target::Exec(id.to_owned())));
        }
    }

    pub(super) fn exec_stdio_opened(
        &mut self,
        id: &str,
        result: Result<(), Refusal>,
        out: &mut Vec<Effect>,
    ) {
        let init_gone = !matches!(self.init, InitState::Alive { died: None, .. });
        match result {
            Ok(()) if init_gone => {
                let text = format!("container {} init process is not running", self.id);
                self.exec_failed(id, Refusal::failed_precondition(text), out);
            }
            Ok(()) => out.push(Effect::Run(Run::Exec(id.to_owned()))),
            Err(refusal) => self.exec_failed(id, refusal, out),
        }
    }

    pub(super) fn exec_ran(
        &mut self,
        id: &str,
        result: Result<Option<i32>, RunFailure>,
        out: &mut Vec<Effect>,
    ) {
        match result {
            Ok(pid) => {
                let pid = pid.unwrap_or_default();
                let Some(exec) = self.execs.get_mut(id) else {
                    return;
                };
                exec.state = ExecState::Running { pid };
                out.push(Effect::Publish(Event::ExecStarted {
                    id: id.to_owned(),
                    pid,
                }));
                if let Some(call) = exec.starting.take() {
                    out.push(Effect::Reply(call, Ok(Reply::Pid(pid))));
                }
            }
            Err(failure) => self.exec_failed(id, failure.refusal, out),
        }
    }

    /// An exec that could not be started is over: its waiters are released (complaint 6), its
    /// id stays until it is deleted, and it holds init's exit no longer.
    fn exec_failed(&mut self, id: &str, refusal: Refusal, out: &mut Vec<Effect>) {
        let exit = never_started(self.now);
        let Some(exec) = self.execs.get_mut(id) else {
            return;
        };
        exec.state = ExecState::Stopped { pid: 0, exit };
        exec.drained = true;
        if let Some(call) = exec.starting.take() {
            out.push(Effect::Reply(call, Err(refusal)));
        }
        for call in std::mem::take(&mut exec.waiters) {
            out.push(Effect::Reply(call, Ok(Reply::Exit(exit))));
        }
        out.push(Effect::Release(Target::Exec(id.to_owned())));
        self.settle(out);
    }

    pub(super) fn exec_exited(&mut self, id: &str, exit: Exit, out: &mut Vec<Effect>) {
        let Some(exec) = self.execs.get_mut(id) else {
            return;
        };
        let ExecState::Running { pid } = exec.state else {
            return;
        };
        exec.state = ExecState::Stopped { pid, exit };
        let target = Target::Exec(id.to_owned());
        out.push(Effect::Publish(Event::Exit { target, pid, exit }));
        for call in std::mem::take(&mut exec.waiters) {
            out.push(Effect::Reply(call, Ok(Reply::Exit(exit))));
        }
        self.settle(out);
    }

    pub(super) fn kill_exec(&mut self, call: CallId, id: &str, signal: i32, out: &mut Vec<Effect>) {
        let target = Target::Exec(id.to_owned());
        out.push(match self.execs.get(id).map(|exec| &exec.state) {
            None => Effect::Reply(call, Err(no_such_process(id))),
            Some(ExecState::Added | ExecState::Starting) => Effect::Reply(
                call,
                Err(Refusal::failed_precondition("process not created")),
            ),
            Some(ExecState::Running { .. }) => Effect::Signal {
                call,
                target,
                signal,
            },
            Some(ExecState::Stopped { .. }) => Effect::Reply(call, Err(already_finished())),
        });
    }

    pub(super) fn delete_exec(&mut self, call: CallId, id: &str, out: &mut Vec<Effect>) {
        let Some(exec) = self.execs.get_mut(id) else {
            // A Delete whose answer was lost is asked again: it gets the same answer.
            let tombstone = self
                .exec_tombstones
                .iter()
                .find(|(tombstone, ..)| tombstone == id);
            let reply = tombstone
                .map(|(_, pid, exit)| Reply::Deleted {
                    pid: *pid,
                    exit: *exit,
                })
                .ok_or_else(|| no_such_process(id));
            out.push(Effect::Reply(call, reply));
            return;
        };
        if let Err(refusal) = exec.state.check_delete() {
            out.push(Effect::Reply(call, Err(refusal)));
            return;
        }
        exec.deleting.push(call);
        if exec.drained || exec.state == ExecState::Added {
            self.exec_deleted(id, out);
        } else if exec.deleting.len() == 1 {
            out.push(Effect::Arm(Timer::Drain(Target::Exec(id.to_owned()))));
        }
    }

    pub(super) fn exec_drain_over(&mut self, id: &str, out: &mut Vec<Effect>) {
        let target = Target::Exec(id.to_owned());
        if self
            .execs
            .get(id)
            .is_some_and(|exec| !exec.deleting.is_empty())
        {
            out.push(Effect::Disarm(Timer::Drain(target)));
            self.exec_deleted(id, out);
        }
    }

    fn exec_deleted(&mut self, id: &str, out: &mut Vec<Effect>) {
        let Some(exec) = self.execs.remove(id) else {
            return;
        };
        let pid = exec.state.pid();
        let exit = exec.state.exit().unwrap_or_else(super::never_ran);
        for call in exec.waiters {
            out.push(Effect::Reply(call, Ok(Reply::Exit(exit))));
        }
        for call in exec.deleting {
            out.push(Effect::Reply(call, Ok(Reply::Deleted { pid, exit })));
        }
        if self.exec_tombstones.len() == EXEC_TOMBSTONES {
            self.exec_tombstones.pop_front();
        }
        self.exec_tombstones.push_back((id.to_owned(), pid, exit));
        out.push(Effect::Release(Target::Exec(id.to_owned())));
    }

    /// The runs of `runc exec` in flight.
    pub(super) fn exec_steps(&self) -> impl Iterator<Item = Step> {
        self.execs
            .iter()
            .filter(|(_, exec)| exec.state == ExecState::Starting)
            .map(|(id, _)| Step::Exec(id.clone()))
    }
}
