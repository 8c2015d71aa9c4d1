//! Property tests of the rules: whatever the order of commands, exits, OOMs, failures and
//! disconnects, every call is answered once, events come in order, and everything ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use task_api::status::Refusal;

use super::*;

/// The world around one container: what is in flight, who lives, who waits.
struct World {
    container: Container,
    now: SystemTime,
    next_call: CallId,
    next_pid: i32,
    private_pid_namespace: bool,
    preparing: bool,
    opening: BTreeSet<Target>,
    runs: BTreeMap<Step, Run>,
    unmounting: bool,
    helpers: Vec<CallId>,
    alive: BTreeMap<Target, i32>,
    timers: BTreeSet<Timer>,
    draining: BTreeSet<Target>,
    asked: BTreeSet<CallId>,
    gone: BTreeSet<CallId>,
    answered: BTreeMap<CallId, Result<Reply, Refusal>>,
    waits: BTreeSet<CallId>,
    events: Vec<Event>,
    forced: bool,
    forgotten: bool,
}

const EXECS: [&str; 3] = ["a", "b", "c"];

fn failure(unclean: bool, container_gone: bool) -> RunFailure {
    RunFailure {
        refusal: Refusal::unknown("it failed"),
        container_gone,
        unclean,
    }
}

impl World {
    fn new(from_checkpoint: bool, private_pid_namespace: bool) -> Self {
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

    fn input(&mut self, input: Input) {
        if self.forgotten {
            return;
        }
        self.now += Duration::from_millis(1);
        let mut out = Vec::new();
        self.container.handle(self.now, input, &mut out);
        self.carry_out(out);
    }

    fn answer(&mut self, call: CallId, reply: Result<Reply, Refusal>) {
        assert!(self.asked.contains(&call), "call {call} was never made");
        let before = self.answered.insert(call, reply);
        assert!(before.is_none(), "call {call} is answered twice");
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
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

    fn ask(&mut self, command: Command) {
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

    fn finish_run(&mut self, step: Step, well: bool, unclean: bool) {
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

    fn exit(&mut self, target: Target, status: u32) {
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

    fn act(&mut self, what: u8, which: u8) {
        let exec = Target::Exec(EXECS[usize::from(which) % EXECS.len()].to_owned());
        let target = if which.is_multiple_of(4) {
            Target::Init
        } else {
            exec.clone()
        };
        let well = !which.is_multiple_of(5);
        match what % 24 {
            0 => self.ask(Command::Start(Target::Init)),
            1 => self.ask(Command::Start(exec)),
            2 => {
                let Target::Exec(id) = exec else { return };
                self.ask(Command::Exec {
                    id,
                    io: IoPaths::default(),
                    spec: Vec::new(),
                });
            }
            3 => self.ask(Command::Delete(target)),
            4 => self.ask(Command::Kill {
                target,
                signal: 9,
                all: which.is_multiple_of(7),
            }),
            5 => self.ask(if well {
                Command::Pause
            } else {
                Command::Resume
            }),
            6 => self.ask(Command::Resume),
            7 => self.ask(if well {
                Command::Update(vec![])
            } else {
                Command::Checkpoint(CheckpointCommand::default())
            }),
            8 => self.ask(Command::Wait(target)),
            9 => self.ask(Command::State(target)),
            10 => self.ask(if well { Command::Pids } else { Command::Stats }),
            11 => {
                if let Some(call) = self.asked.iter().nth(usize::from(which)).copied() {
                    self.gone.insert(call);
                    self.input(Input::CallGone(call));
                }
            }
            12 | 13 => {
                if self.preparing {
                    self.preparing = false;
                    self.input(Input::Prepared(self.prepared(well)));
                } else if let Some(target) = self.opening.pop_first() {
                    let result = if well {
                        Ok(())
                    } else {
                        Err(Refusal::unknown("no stdio"))
                    };
                    self.input(Input::StdioOpened(target, result));
                }
            }
            14..=17 => {
                let step = self
                    .runs
                    .keys()
                    .nth(usize::from(which) % self.runs.len().max(1));
                if let Some(step) = step.cloned() {
                    self.finish_run(step, well, which.is_multiple_of(2));
                }
            }
            18 => {
                if self.unmounting {
                    self.unmounting = false;
                    self.input(Input::Unmounted(if well {
                        Ok(())
                    } else {
                        Err("busy".into())
                    }));
                }
            }
            19 => self.exit(target, u32::from(which)),
            20 => {
                if self.alive.contains_key(&Target::Init) {
                    self.input(Input::Oom);
                }
            }
            21 => {
                if !self.alive.contains_key(&target) && self.draining.remove(&target) {
                    self.input(Input::Drained(target));
                }
            }
            22 => self.fire(usize::from(which)),
            23 if which.is_multiple_of(16) => self.break_down(),
            _ => self.ask(Command::Connect),
        }
    }

    /// The rules fail with a panic (DESIGN rule 9).
    fn break_down(&mut self) {
        if self.forgotten || self.container.broken {
            return;
        }
        // What was held back is lost; from here on the kernel's order is all there is.
        self.forced = true;
        let mut out = Vec::new();
        self.container.break_down(self.now, &mut out);
        self.carry_out(out);
    }

    fn prepared(&self, well: bool) -> Result<Facts, Refusal> {
        if !well {
            return Err(Refusal::invalid_argument("no config.json"));
        }
        Ok(Facts {
            private_pid_namespace: self.private_pid_namespace,
            runtime_is_known: self.private_pid_namespace,
            mounted: !self.private_pid_namespace,
        })
    }

    fn fire(&mut self, which: usize) {
        let Some(timer) = self
            .timers
            .iter()
            .nth(which % self.timers.len().max(1))
            .cloned()
        else {
            return;
        };
        self.timers.remove(&timer);
        self.forced |= matches!(timer, Timer::PublishAnyway | Timer::AwaitExit);
        self.input(Input::Timer(timer));
    }

    /// Lets everything that is under way come to its end, every process included.
    fn come_to_rest(&mut self) {
        for _ in 0..200 {
            if self.preparing {
                self.preparing = false;
                self.input(Input::Prepared(self.prepared(true)));
            }
            while let Some(target) = self.opening.pop_first() {
                self.input(Input::StdioOpened(target, Ok(())));
            }
            while let Some(step) = self.runs.keys().next().cloned() {
                self.finish_run(step, true, false);
            }
            if std::mem::take(&mut self.unmounting) {
                self.input(Input::Unmounted(Ok(())));
            }
            while let Some(target) = self.alive.keys().next().cloned() {
                self.exit(target, 0);
            }
            while let Some(target) = self.draining.pop_first() {
                self.input(Input::Drained(target));
            }
            for call in std::mem::take(&mut self.helpers) {
                self.answer(call, Ok(Reply::Empty));
            }
            if self.timers.is_empty() {
                return;
            }
            self.fire(0);
        }
        panic!(
            "the container never comes to rest: {}",
            self.container.describe()
        );
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

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_breaks_an_invariant(
        from_checkpoint in proptest::bool::weighted(0.2),
        private_pid_namespace: bool,
        actions in proptest::collection::vec((any::<u8>(), any::<u8>()), 0..120),
    ) {
        let mut world = World::new(from_checkpoint, private_pid_namespace);
        for (what, which) in actions {
            world.act(what, which);
        }
        world.come_to_rest();
        let init_started = world.container.init != InitState::FromCheckpoint;
        for call in &world.asked {
            let waits_for_the_unstarted = world.waits.contains(call) && !world.forgotten;
            prop_assert!(
                world.answered.contains_key(call)
                    || world.gone.contains(call)
                    || waits_for_the_unstarted,
                "call {} is never answered: {}", call, world.container.describe()
            );
        }
        let created = world.events.iter().any(|event| matches!(event, Event::Create { pid } if *pid > 0))
            || world.events.iter().any(|event| matches!(event, Event::Start { .. }));
        if created && init_started {
            prop_assert!(
                world.events.iter().any(|event| matches!(event, Event::Exit { target: Target::Init, .. })),
                "init's exit is lost: {:?}", world.events
            );
        }
        if !world.forgotten {
            world.ask(Command::Delete(Target::Init));
            world.come_to_rest();
            prop_assert!(world.forgotten, "{}", world.container.describe());
        }
    }
}
