//! Property tests of the rules: whatever the order of commands, exits, OOMs, failures and
//! disconnects, every call is answered once, events come in order, and everything ends.

mod world;

use proptest::prelude::*;
use task_api::status::Refusal;

use super::*;
use world::{EXECS, World};

/// What may happen in it.
impl World {
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
