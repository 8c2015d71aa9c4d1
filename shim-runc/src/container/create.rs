//! The way to a created container: prepare the bundle, open stdio, run `create`; and the way
//! back when any of it fails, or when a Delete meets it half way (DESIGN rule 6).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::SystemTime;

use task_api::status::Refusal;

use super::{
    CallId, Command, Container, Creation, Effect, Event, Exit, Facts, IoPaths, Reply, Run,
    RunFailure, Step, Target, Timer,
};
use crate::process::{InitState, Phase, not_created};

/// What a Delete that undid a creation is told: the status of a process killed by SIGKILL.
const KILLED: u32 = 137;

impl Container {
    /// Begins a container: the first effects come out in `out`, the answer to `call` follows
    /// when the container is created or its creation is undone.
    pub fn create(
        id: String,
        io: IoPaths,
        from_checkpoint: bool,
        call: CallId,
        out: &mut Vec<Effect>,
    ) -> Self {
        out.push(Effect::Prepare);
        Self {
            id,
            init: InitState::Creating,
            io,
            from_checkpoint,
            facts: None,
            creation: Creation::Preparing,
            creator: Some(call),
            aborters: Vec::new(),
            create_failure: None,
            operation: None,
            queue: VecDeque::new(),
            waiters: Vec::new(),
            execs: BTreeMap::new(),
            exec_tombstones: VecDeque::new(),
            drained: false,
            killing_rest: false,
            asking_runtime: BTreeSet::new(),
            publish_anyway: false,
            announced: false,
            broken: false,
            now: SystemTime::UNIX_EPOCH,
        }
    }

    /// True until the container is created: nobody but Delete and Shutdown can see it.
    pub fn is_creating(&self) -> bool {
        self.creation != Creation::Done
    }

    pub(super) fn command_while_creating(
        &mut self,
        call: CallId,
        command: &Command,
        out: &mut Vec<Effect>,
    ) {
        match command {
            Command::Delete(Target::Init) => {
                self.aborters.push(call);
                self.abort(out);
            }
            // Connect never fails: containerd asks it before it knows anything of the task.
            Command::Connect => out.push(Effect::Reply(call, Ok(Reply::Connect { pid: 0 }))),
            _ => out.push(Effect::Reply(call, Err(not_created()))),
        }
    }

    /// Gives up a creation under way; it is undone as soon as its current step is over.
    pub fn abort(&mut self, out: &mut Vec<Effect>) {
        if self.create_failure.is_none() {
            self.create_failure = Some(Refusal::aborted(format!(
                "creation of container {} was ended by a delete",
                self.id
            )));
            if self.creation == Creation::Running {
                out.push(Effect::KillRun(Step::Create));
            }
        }
    }

    pub(super) fn prepared(&mut self, result: Result<Facts, Refusal>, out: &mut Vec<Effect>) {
        match result {
            Ok(facts) => {
                self.facts = Some(facts);
                if self.create_failure.is_some() {
                    return self.undo_mounts(out);
                }
                if self.from_checkpoint {
                    // Nothing runs before Start, which restores; stdio is opened then, too.
                    self.creation = Creation::Done;
                    self.init = InitState::FromCheckpoint;
                    self.announce(0, out);
                    return self.answer_creator(Ok(Reply::Pid(0)), out);
                }
                self.creation = Creation::OpeningStdio;
                out.push(Effect::OpenStdio(Target::Init));
            }
            Err(refusal) => {
                self.create_failure.get_or_insert(refusal);
                self.creation_failed(out);
            }
        }
    }

    pub(super) fn init_stdio_opened(&mut self, result: Result<(), Refusal>, out: &mut Vec<Effect>) {
        if self.creation == Creation::Done {
            return self.restore_stdio_opened(result, out);
        }
        if let Err(refusal) = result {
            self.create_failure.get_or_insert(refusal);
        }
        if self.create_failure.is_some() {
            return self.undo_mounts(out);
        }
        self.creation = Creation::Running;
        out.push(Effect::Run(Run::Create));
    }

    pub(super) fn create_ran(
        &mut self,
        result: Result<Option<i32>, RunFailure>,
        out: &mut Vec<Effect>,
    ) {
        match result {
            Ok(pid) if self.create_failure.is_none() => {
                let pid = pid.unwrap_or_default();
                self.creation = Creation::Done;
                self.init = InitState::Alive {
                    pid,
                    phase: Phase::Created,
                    died: None,
                };
                self.announce(pid, out);
                out.push(Effect::WatchOom);
                self.answer_creator(Ok(Reply::Pid(pid)), out);
            }
            Err(failure) if self.create_failure.is_none() && !failure.unclean => {
                // The runtime ended by itself and cleaned up behind itself.
                self.create_failure = Some(failure.refusal);
                self.undo_mounts(out);
            }
            result => {
                if let Err(failure) = result {
                    self.create_failure.get_or_insert(failure.refusal);
                }
                self.creation = Creation::Undoing;
                out.push(Effect::Arm(Timer::StopDelete));
                out.push(Effect::Run(Run::Delete { force: true }));
            }
        }
    }

    /// `delete --force` is over. Whether it found something does not matter.
    pub(super) fn undone(&mut self, out: &mut Vec<Effect>) {
        out.push(Effect::Disarm(Timer::StopDelete));
        self.undo_mounts(out);
    }

    fn undo_mounts(&mut self, out: &mut Vec<Effect>) {
        if self.facts.is_some_and(|facts| facts.mounted) {
            self.creation = Creation::Unmounting;
            out.push(Effect::Unmount);
        } else {
            self.creation_failed(out);
        }
    }

    pub(super) fn unmounted(&mut self, result: Result<(), String>, out: &mut Vec<Effect>) {
        if self.creation == Creation::Done {
            return self.delete_unmounted(result, out);
        }
        if let Err(error) = result {
            out.push(Effect::Log(format!(
                "undoing the creation of {}: {error}",
                self.id
            )));
        }
        self.creation_failed(out);
    }

    fn creation_failed(&mut self, out: &mut Vec<Effect>) {
        let refusal = self.create_failure.clone().unwrap_or_else(not_created);
        out.push(Effect::Release(Target::Init));
        self.answer_creator(Err(refusal), out);
        let exit = Exit {
            status: KILLED,
            at: self.now,
        };
        for call in std::mem::take(&mut self.aborters) {
            out.push(Effect::Reply(call, Ok(Reply::Deleted { pid: 0, exit })));
        }
        out.push(Effect::Forget(None));
    }

    fn announce(&mut self, pid: i32, out: &mut Vec<Effect>) {
        self.announced = true;
        out.push(Effect::Publish(Event::Create { pid }));
    }

    fn answer_creator(&mut self, reply: Result<Reply, Refusal>, out: &mut Vec<Effect>) {
        if let Some(call) = self.creator.take() {
            out.push(Effect::Reply(call, reply));
        }
    }
}
