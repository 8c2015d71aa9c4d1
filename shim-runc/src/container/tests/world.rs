//! The world around one container, played: what is in flight, who lives, who waits, what was told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use task_api::status::Refusal;

use super::super::*;

/// The world around one container: what is in flight, who lives, who waits.
pub(super) struct World {
    pub(super) container: Container,
    pub(super) now: SystemTime,
    pub(super) next_call: CallId,
    pub(super) next_pid: i32,
    pub(super) private_pid_namespace: bool,
    pub(super) preparing: bool,
    pub(super) opening: BTreeSet<Target>,
    pub(super) runs: BTreeMap<Step, Run>,
    pub(super) unmounting: bool,
    pub(super) helpers: Vec<CallId>,
    pub(super) alive: BTreeMap<Target, i32>,
    pub(super) timers: BTreeSet<Timer>,
    pub(super) draining: BTreeSet<Target>,
    pub(super) asked: BTreeSet<CallId>,
    pub(super) gone: BTreeSet<CallId>,
    pub(super) answered: BTreeMap<CallId, Result<Reply, Refusal>>,
    pub(super) waits: BTreeSet<CallId>,
    pub(super) events: Vec<Event>,
    pub(super) forced: bool,
    pub(super) forgotten: bool,
}

pub(super) const EXECS: [&str; 3] = ["a", "b", "c"];

fn failure(unclean: bool, container_gone: bool) -> RunFailure {
    RunFailure {
        refusal: Refusal::unknown("it failed"),
        container_gone,
        unclean,
    }
}

impl World {
    pub(super) fn new(from_checkpoint: bool, private_pid_namespace: bool) -> Self {
        let mut out = Vec::new();
        let container =
            Container::create("c".into(), IoPaths::default(), from_checkpoint, 1, &mut out);
        let mut world = Self {
            container,
            now: SystemTime::UNIX_EPOCH,
            next_call: 2,
            next_pid: 100,
            private_pid_namespace,
            preparing: false,
            opening: BTreeSet::new(),
            runs: BTreeMap::new(),
            unmounting: false,
            helpers: Vec::new(),
            alive: BTreeMap::new(),
            timers: BTreeSet::new(),
            draining: BTreeSet::new(),
            asked: BTreeSet::from([1]),
            gone: BTreeSet::new(),
            answered: BTreeMap::new(),
            waits: BTreeSet::new(),
            events: Vec::new(),
            forced: false,
            forgotten: false,
        };
        world.carry_out(out);
        world
    }

    pub(super) fn input(&mut self, input: Input) {
        if self.forgotten {
            return;
        }
        self.now += Duration::from_millis(1);
        let mut out = Vec::new();
        self.container.handle(self.now, input, &mut out);
        self.carry_out(out);
    }

    pub(super) fn answer(&mut self, call: CallId, reply: Result<Reply, Refusal>) {
        assert!(self.asked.contains(&call), "call {call} was never made");
        let before = self.answered.insert(call, reply);
        assert!(before.is_none(), "call {call} is answered twice");
    }

    pub(super) fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            assert!(
                !self.forgotten,
                "{effect:?} after the container is forgotten"
            );
            match effect {
                Effect::Reply(call, reply) => self.answer(call, reply),
                Effect::Publish(event) => self.publish(event),
                Effect::Prepare => self.preparing = true,
                Effect::OpenStdio(target) => {
                    assert!(self.opening.insert(target));
                }
                Effect::Run(run) => {
                    let twin = self.runs.insert(run.step(), run);
                    assert!(twin.is_none(), "{twin:?} is in flight already");
                }
                Effect::KillRun(step) => {
                    if self.runs.remove(&step).is_some() {
                        self.input(Input::Ran(step, Err(failure(true, false))));
                    }
                }
                Effect::Signal { call, target, .. } => {
                    let reply = if self.alive.contains_key(&target) {
                        Ok(Reply::Empty)
                    } else {
                        Err(Refusal::not_found("process already finished"))
                    };
                    self.answer(call, reply);
                }
                Effect::ReadPids(call) | Effect::ReadStats(call) => self.helpers.push(call),
                Effect::Resize { call, .. } => self.answer(call, Ok(Reply::Empty)),
                Effect::Unmount => {
                    assert!(!self.unmounting || self.container.broken);
                    self.unmounting = true;
                }
                Effect::Arm(timer) => {
                    self.timers.insert(timer);
                }
                Effect::Disarm(timer) => {
                    self.timers.remove(&timer);
                }
                Effect::Forget(_) => self.forgotten = true,
                Effect::WatchOom
                | Effect::CloseStdin(_)
                | Effect::KeepExec { .. }
                | Effect::Release(_)
                | Effect::Log(_) => {}
            }
        }
    }

    /// Checks the order of events as they are published (shim-contract section 3).
    fn publish(&mut self, event: Event) {
        let seen = |wanted: &dyn Fn(&Event) -> bool| self.events.iter().any(wanted);
        let init_exited = seen(&|event| {
            matches!(
                event,
                Event::Exit {
                    target: Target::Init,
                    ..
                }
            )
        });
        assert!(
            !seen(&|event| matches!(event, Event::Delete { .. })),
            "{event:?} after delete"
        );
        assert_eq!(
            matches!(event, Event::Create { .. }),
            self.events.is_empty(),
            "create comes first and once: {event:?} after {:?}",
            self.events
        );
        match &event {
            Event::Start { .. } => {
                assert!(!init_exited, "start after exit");
                assert!(!seen(&|event| matches!(event, Event::Start { .. })));
            }
            Event::Exit {
                target: Target::Init,
                ..
            } => {
                assert!(!init_exited, "init exits twice");
                if !self.forced {
                    let started = self
                        .events
                        .iter()
                        .filter(|event| matches!(event, Event::ExecStarted { .. }))
                        .count();
                    let exits = self
                        .events
                        .iter()
                        .filter(|event| matches!(event, Event::Exit { .. }))
                        .count();
                    assert_eq!(
                        started, exits,
                        "an exec's exit is missing: {:?}",
                        self.events
                    );
                }
            }
            Event::Exit {
                target: Target::Exec(id),
                ..
            } => {
                let count = |wanted: &dyn Fn(&Event) -> bool| {
                    self.events.iter().filter(|event| wanted(event)).count()
                };
                let started = count(
                    &|event| matches!(event, Event::ExecStarted { id: other, .. } if other == id),
                );
                let exits = count(
                    &|event| matches!(event, Event::Exit { target: Target::Exec(other), .. } if other == id),
                );
                assert_eq!(started, exits + 1, "{event:?} without a start");
            }
            Event::Oom => assert!(!init_exited, "OOM after exit"),
            _ => {}
        }
        self.events.push(event);
    }

    pub(super) fn ask(&mut self, command: Command) {
        let call = self.next_call;
        self.next_call += 1;
        self.asked.insert(call);
        if matches!(command, Command::Wait(_)) {
            self.waits.insert(call);
        }
        if self.forgotten {
            self.answer(call, Err(Refusal::not_found("container not created")));
        } else {
            self.input(Input::Command(call, command));
        }
    }

    fn spawn(&mut self, target: Target) -> i32 {
        self.next_pid += 1;
        self.alive.insert(target.clone(), self.next_pid);
        self.draining.insert(target);
        self.next_pid
    }

    pub(super) fn finish_run(&mut self, step: Step, well: bool, unclean: bool) {
        let Some(run) = self.runs.remove(&step) else {
            return;
        };
        let result = match run {
            _ if !well => Err(failure(unclean, unclean)),
            Run::Create | Run::Restore => Ok(Some(self.spawn(Target::Init))),
            // A process cannot join a PID namespace whose init is gone.
            Run::Exec(_) if !self.alive.contains_key(&Target::Init) => Err(failure(false, false)),
            Run::Exec(id) => Ok(Some(self.spawn(Target::Exec(id)))),
            _ => Ok(None),
        };
        if let (Step::Ps(call), Ok(_), false) =
            (&step, &result, self.forgotten || self.container.broken)
        {
            self.answer(*call, Ok(Reply::Empty));
        }
        let kills_rest = matches!(run_kind(&step), Kind::Delete | Kind::KillRest) && well;
        self.input(Input::Ran(step.clone(), result));
        if kills_rest {
            if step != Step::KillRest {
                self.exit(Target::Init, 137);
            }
            for id in EXECS {
                self.exit(Target::Exec(id.to_owned()), 137);
            }
        }
    }

    pub(super) fn exit(&mut self, target: Target, status: u32) {
        if target == Target::Init && self.private_pid_namespace {
            // The kernel lets init end only when everybody in its namespace has ended.
            for id in EXECS {
                self.exit(Target::Exec(id.to_owned()), 137);
            }
        }
        if self.alive.remove(&target).is_some() {
            self.input(Input::Exited(
                target,
                Exit {
                    status,
                    at: self.now,
                },
            ));
        }
    }
}

enum Kind {
    Delete,
    KillRest,
    Other,
}

fn run_kind(step: &Step) -> Kind {
    match step {
        Step::Delete | Step::Destroy => Kind::Delete,
        Step::KillRest => Kind::KillRest,
        _ => Kind::Other,
    }
}
