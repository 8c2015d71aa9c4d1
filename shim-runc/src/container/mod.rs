//! The pure rules of one container: an input goes in, effects come out, nothing is done here.
//!
//! The supervisor owns a [`Container`], feeds it every [`Input`] that concerns it, in the order
//! in which they happened, and carries out the [`Effect`]s in the order in which they come out.
//! One lifecycle operation on init is in flight at a time, others wait in line; execs start in
//! parallel; questions (State, Wait, Connect) are answered at once (DESIGN rules 1, 2 and 6).
//!
//! `create.rs` is the way to a created container and back, `init.rs` the lifecycle operations on
//! init, `exec.rs` the exec processes, `exit.rs` exits and what they hold back.

mod broken;
mod create;
mod exec;
mod exit;
mod init;
mod messages;
mod query;
#[cfg(test)]
mod stories;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::SystemTime;

use task_api::status::Refusal;

pub use messages::{
    CallId, CheckpointCommand, Command, Effect, Event, Facts, Input, IoPaths, Reply, Run,
    RunFailure, StateReply, Status, Step, Target, Timer,
};

pub use crate::process::Exit;
use crate::process::{ExecState, InitState};

/// One exec process.
#[derive(Clone, Debug)]
struct Exec {
    state: ExecState,
    io: IoPaths,
    waiters: Vec<CallId>,
    /// The Start in flight.
    starting: Option<CallId>,
    /// Calls whose Delete waits for output to drain.
    deleting: Vec<CallId>,
    drained: bool,
}

/// How far the creation of the container has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Creation {
    Preparing,
    OpeningStdio,
    Running,
    /// `delete --force` after a run that may have left something.
    Undoing,
    /// The rootfs is being unmounted.
    Unmounting,
    Done,
}

/// How far a Delete of init has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deletion {
    Runtime,
    Unmount,
    Exit,
    Drain,
}

/// The lifecycle operation on init that is in flight.
#[derive(Clone, Debug)]
enum Operation {
    Start(CallId),
    Pause(CallId),
    Resume(CallId),
    Update(CallId),
    Checkpoint(CallId),
    Delete(Vec<CallId>, Deletion),
}

/// One container and all that is known of it.
#[derive(Clone, Debug)]
pub struct Container {
    id: String,
    init: InitState,
    io: IoPaths,
    from_checkpoint: bool,
    facts: Option<Facts>,
    creation: Creation,
    creator: Option<CallId>,
    /// Deletes that met the creation: they are answered when it is undone.
    aborters: Vec<CallId>,
    create_failure: Option<Refusal>,
    operation: Option<Operation>,
    queue: VecDeque<(CallId, Command)>,
    waiters: Vec<CallId>,
    execs: BTreeMap<String, Exec>,
    exec_tombstones: VecDeque<(String, i32, Exit)>,
    drained: bool,
    killing_rest: bool,
    /// Calls whose own run of the runtime (kill, ps) is in flight.
    asking_runtime: BTreeSet<CallId>,
    publish_anyway: bool,
    /// The daemon has been told of the container.
    announced: bool,
    /// The rules have failed once (DESIGN rule 9).
    broken: bool,
    /// When the input being handled happened; the rules have no clock of their own.
    now: SystemTime,
}

/// How many deleted execs are remembered, so that a late Delete gets the same answer again
/// (DESIGN rule 11).
const EXEC_TOMBSTONES: usize = 64;

impl Container {
    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Takes one input that happened at `now`; what is to be done about it is appended to `out`.
    pub fn handle(&mut self, now: SystemTime, input: Input, out: &mut Vec<Effect>) {
        self.now = now;
        if self.broken {
            return self.handle_broken(input, out);
        }
        match input {
            Input::Command(call, command) => self.command(call, command, out),
            Input::CallGone(call) => self.call_gone(call),
            Input::Prepared(result) => self.prepared(result, out),
            Input::StdioOpened(Target::Init, result) => self.init_stdio_opened(result, out),
            Input::StdioOpened(Target::Exec(id), result) => {
                self.exec_stdio_opened(&id, result, out);
            }
            Input::Ran(step, result) => self.ran(step, result, out),
            Input::Exited(target, exit) => self.exited(&target, exit, out),
            Input::Oom => self.oom(out),
            Input::Drained(target) => self.has_drained(&target, out),
            Input::Unmounted(result) => self.unmounted(result, out),
            Input::Timer(timer) => self.timer(&timer, out),
        }
    }

    fn command(&mut self, call: CallId, command: Command, out: &mut Vec<Effect>) {
        if self.creation != Creation::Done {
            return self.command_while_creating(call, &command, out);
        }
        match command {
            Command::Start(Target::Exec(id)) => self.start_exec(call, &id, out),
            Command::Delete(Target::Exec(id)) => self.delete_exec(call, &id, out),
            Command::Exec { id, io, spec } => self.add_exec(call, id, io, spec, out),
            Command::Kill {
                target: Target::Exec(id),
                signal,
                ..
            } => {
                self.kill_exec(call, &id, signal, out);
            }
            Command::Kill {
                target: Target::Init,
                signal,
                all,
            } => {
                self.kill_init(call, signal, all, out);
            }
            Command::State(target) => self.state(call, &target, out),
            Command::Wait(target) => self.wait(call, &target, out),
            Command::Connect => {
                out.push(Effect::Reply(
                    call,
                    Ok(Reply::Connect {
                        pid: self.init.pid(),
                    }),
                ));
            }
            Command::Pids => self.pids(call, out),
            Command::Stats => out.push(Effect::ReadStats(call)),
            Command::CloseIo(target) => self.close_io(call, &target, out),
            Command::Resize {
                target,
                width,
                height,
            } => {
                self.resize(call, target, width, height, out);
            }
            command @ (Command::Start(Target::Init)
            | Command::Delete(Target::Init)
            | Command::Pause
            | Command::Resume
            | Command::Update(_)
            | Command::Checkpoint(_)) => self.enqueue(call, command, out),
        }
    }

    fn ran(&mut self, step: Step, result: Result<Option<i32>, RunFailure>, out: &mut Vec<Effect>) {
        match step {
            Step::Create => self.create_ran(result, out),
            Step::Start | Step::Restore => self.start_ran(result, out),
            Step::Pause | Step::Resume | Step::Update | Step::Checkpoint => {
                self.operation_ran(result.map(drop), out);
            }
            Step::Delete if self.creation != Creation::Done => self.undone(out),
            Step::Delete => self.delete_ran(result.map(drop), out),
            Step::Kill(call) => {
                self.asking_runtime.remove(&call);
                let reply = result
                    .map(|_| Reply::Empty)
                    .map_err(|failure| failure.refusal);
                out.push(Effect::Reply(call, reply));
            }
            // The supervisor answers Ps itself, with the pids; only a failure comes here.
            Step::Ps(call) => {
                self.asking_runtime.remove(&call);
                if let Err(failure) = result {
                    out.push(Effect::Reply(call, Err(failure.refusal)));
                }
            }
            // Only a broken container is destroyed, and it does not come here.
            Step::Destroy => {}
            Step::Exec(id) => self.exec_ran(&id, result, out),
            Step::Thaw => {
                if let Err(failure) = result {
                    out.push(Effect::Log(format!(
                        "thaw after init's exit: {}",
                        failure.refusal
                    )));
                }
            }
            Step::KillRest => {
                self.killing_rest = false;
                if let Err(failure) = result {
                    out.push(Effect::Log(format!(
                        "kill of what init left behind: {}",
                        failure.refusal
                    )));
                }
                self.settle(out);
            }
        }
    }

    fn timer(&mut self, timer: &Timer, out: &mut Vec<Effect>) {
        match timer {
            Timer::StopRuns => self.stop_runs(out),
            Timer::PublishAnyway => {
                self.publish_anyway = true;
                self.settle(out);
            }
            Timer::StopDelete => out.push(Effect::KillRun(Step::Delete)),
            Timer::Drain(Target::Init) => self.drain_over(out),
            Timer::Drain(Target::Exec(id)) => self.exec_drain_over(id, out),
            Timer::AwaitExit => self.exit_overdue(out),
        }
    }

    /// A client that went away waits for nothing; what it began goes on to its end (rule 6), and
    /// what has not begun is not begun any more: nobody would know of it.
    fn call_gone(&mut self, call: CallId) {
        self.queue.retain(|(waiting, _)| *waiting != call);
        self.waiters.retain(|waiter| *waiter != call);
        for exec in self.execs.values_mut() {
            exec.waiters.retain(|waiter| *waiter != call);
        }
    }
}

/// The end of something that never had a process: the answer for deletes of it.
fn never_ran() -> Exit {
    Exit {
        status: 0,
        at: SystemTime::UNIX_EPOCH,
    }
}
