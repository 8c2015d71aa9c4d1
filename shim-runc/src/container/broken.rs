//! A container whose rules have failed with a panic (DESIGN rule 9). What it was doing is
//! forgotten; Kill, Wait, State and Delete still work, from the kernel's facts alone.

use std::time::SystemTime;

use task_api::status::Refusal;

use super::{
    CallId, Command, Container, Creation, Deletion, Effect, Event, Exit, Input, Operation, Reply,
    Run, Step, Target, Timer, never_ran,
};
use crate::process::{ExecState, InitState};

impl Container {
    /// Answers every call that was under way and goes on in the broken state.
    pub fn break_down(&mut self, now: SystemTime, out: &mut Vec<Effect>) {
        self.now = now;
        self.broken = true;
        let refusal = Refusal::internal(format!("container {} is broken", self.id));
        let mut calls: Vec<CallId> = self.creator.take().into_iter().collect();
        calls.append(&mut self.aborters);
        calls.extend(
            std::mem::take(&mut self.queue)
                .into_iter()
                .map(|(call, _)| call),
        );
        calls.extend(std::mem::take(&mut self.asking_runtime));
        match self.operation.take() {
            Some(Operation::Delete(mut deletes, _)) => calls.append(&mut deletes),
            Some(
                Operation::Start(call)
                | Operation::Pause(call)
                | Operation::Resume(call)
                | Operation::Update(call)
                | Operation::Checkpoint(call),
            ) => calls.push(call),
            None => {}
        }
        for exec in self.execs.values_mut() {
            calls.extend(exec.starting.take());
            calls.append(&mut exec.deleting);
        }
        if let InitState::Alive {
            died: Some(exit), ..
        } = self.init
        {
            // Nothing is held back any more.
            self.broken_exit(exit, out);
        }
        self.creation = Creation::Done;
        out.extend(
            calls
                .into_iter()
                .map(|call| Effect::Reply(call, Err(refusal.clone()))),
        );
    }

    pub(super) fn handle_broken(&mut self, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::Command(call, command) => self.broken_command(call, command, out),
            Input::CallGone(call) => self.call_gone(call),
            // One that was made up for a process that outlived its container was told before.
            Input::Exited(Target::Init, _) if self.init.exit().is_some() => {}
            Input::Exited(Target::Init, exit) => self.broken_exit(exit, out),
            Input::Exited(Target::Exec(id), exit) => self.exec_exited(&id, exit, out),
            // Created or started while the rules failed: it is known now, and can be killed.
            Input::Ran(Step::Create | Step::Restore, Ok(Some(pid))) => {
                let phase = crate::process::Phase::Running;
                self.init = InitState::Alive {
                    pid,
                    phase,
                    died: None,
                };
            }
            Input::Ran(Step::Exec(id), Ok(Some(pid))) => {
                if let Some(exec) = self.execs.get_mut(&id) {
                    exec.state = ExecState::Running { pid };
                    out.push(Effect::Publish(Event::ExecStarted { id, pid }));
                }
            }
            Input::Ran(Step::Destroy, _) => match self.facts {
                Some(facts) if facts.mounted => out.push(Effect::Unmount),
                _ => self.broken_deleted(out),
            },
            Input::Unmounted(result) => {
                if let Err(error) = result {
                    out.push(Effect::Log(format!(
                        "unmount the rootfs of {}: {error}",
                        self.id
                    )));
                }
                self.broken_deleted(out);
            }
            Input::Drained(target) => self.has_drained(&target, out),
            Input::Timer(Timer::StopDelete) => out.push(Effect::KillRun(Step::Destroy)),
            Input::Timer(Timer::Drain(Target::Exec(id))) => self.exec_drain_over(&id, out),
            Input::Prepared(_)
            | Input::StdioOpened(..)
            | Input::Ran(..)
            | Input::Oom
            | Input::Timer(_) => {}
        }
    }

    fn broken_command(&mut self, call: CallId, command: Command, out: &mut Vec<Effect>) {
        match command {
            Command::Kill { target, signal, .. } => {
                out.push(Effect::Signal {
                    call,
                    target,
                    signal,
                });
            }
            Command::Wait(target) => self.wait(call, &target, out),
            Command::State(target) => self.state(call, &target, out),
            Command::Connect => {
                out.push(Effect::Reply(
                    call,
                    Ok(Reply::Connect {
                        pid: self.init.pid(),
                    }),
                ));
            }
            Command::Pids => out.push(Effect::ReadPids(call)),
            Command::Stats => out.push(Effect::ReadStats(call)),
            Command::Delete(Target::Init) => match &mut self.operation {
                Some(Operation::Delete(calls, _)) => calls.push(call),
                _ => {
                    self.operation = Some(Operation::Delete(vec![call], Deletion::Runtime));
                    out.push(Effect::Arm(Timer::StopDelete));
                    out.push(Effect::Run(Run::Destroy));
                }
            },
            Command::Delete(Target::Exec(id)) => self.delete_exec(call, &id, out),
            _ => {
                let refusal = Refusal::internal(format!("container {} is broken", self.id));
                out.push(Effect::Reply(call, Err(refusal)));
            }
        }
    }

    fn broken_exit(&mut self, exit: Exit, out: &mut Vec<Effect>) {
        let pid = self.init.pid();
        self.init = InitState::Stopped { pid, exit };
        if self.announced {
            out.push(Effect::Publish(Event::Exit {
                target: Target::Init,
                pid,
                exit,
            }));
        }
        for call in std::mem::take(&mut self.waiters) {
            out.push(Effect::Reply(call, Ok(Reply::Exit(exit))));
        }
    }

    fn broken_deleted(&mut self, out: &mut Vec<Effect>) {
        let Some(Operation::Delete(calls, _)) = self.operation.take() else {
            return;
        };
        if matches!(self.init, InitState::Alive { .. }) {
            // The forced delete has killed it; its exit is told before the delete.
            self.broken_exit(
                Exit {
                    status: 137,
                    at: self.now,
                },
                out,
            );
        }
        let (pid, exit) = (self.init.pid(), self.init.exit().unwrap_or_else(never_ran));
        self.deleted_with(calls, pid, exit, out);
    }
}
