//! Single stories of the rules, told input by input: runtimes that hang, clients that give up.

use std::time::SystemTime;

use task_api::status::Refusal;

use super::*;

/// A container and what its rules said last.
struct Story {
    container: Container,
    said: Vec<Effect>,
}

impl Story {
    /// A container that is created and, unless it waits for its restore, started; by calls 1 and 2.
    fn running(from_checkpoint: bool, private_pid_namespace: bool) -> Self {
        let mut said = Vec::new();
        let container = Container::create(
            "c".into(),
            IoPaths::default(),
            from_checkpoint,
            1,
            &mut said,
        );
        let mut story = Self { container, said };
        story.tell(Input::Prepared(Ok(Facts {
            private_pid_namespace,
            runtime_is_known: true,
            mounted: false,
        })));
        if !from_checkpoint {
            story.tell(Input::StdioOpened(Target::Init, Ok(())));
            story.tell(Input::Ran(Step::Create, Ok(Some(100))));
            story.ask(2, Command::Start(Target::Init));
            story.tell(Input::Ran(Step::Start, Ok(None)));
        }
        story
    }

    fn tell(&mut self, input: Input) {
        self.said.clear();
        self.container
            .handle(SystemTime::UNIX_EPOCH, input, &mut self.said);
    }

    fn ask(&mut self, call: CallId, command: Command) {
        self.tell(Input::Command(call, command));
    }

    fn exits(&mut self, target: Target) {
        let exit = Exit {
            status: 137,
            at: SystemTime::UNIX_EPOCH,
        };
        self.tell(Input::Exited(target, exit));
    }

    fn said(&self, effect: &Effect) -> bool {
        self.said.contains(effect)
    }

    /// The call was answered, whatever the answer.
    fn answered(&self, call: CallId) -> bool {
        let is = |effect: &Effect| matches!(effect, Effect::Reply(to, _) if *to == call);
        self.said.iter().any(is)
    }
}

fn failed(unclean: bool) -> RunFailure {
    RunFailure {
        refusal: Refusal::unknown("it failed"),
        container_gone: false,
        unclean,
    }
}

#[test]
fn a_hung_update_of_a_dead_container_does_not_hold_its_delete() {
    let mut story = Story::running(false, true);
    story.ask(3, Command::Update(Vec::new()));
    story.exits(Target::Init);
    assert!(story.said(&Effect::Arm(Timer::StopRuns)));
    story.ask(4, Command::Delete(Target::Init));
    story.tell(Input::Timer(Timer::StopRuns));
    assert!(story.said(&Effect::KillRun(Step::Update)));
    story.tell(Input::Ran(Step::Update, Err(failed(true))));
    assert!(story.answered(3));
    assert!(story.said(&Effect::Run(Run::Delete { force: false })));
}

#[test]
fn what_no_client_waits_for_any_more_is_not_begun() {
    let mut story = Story::running(false, true);
    story.ask(3, Command::Update(Vec::new()));
    story.ask(4, Command::Pause);
    story.tell(Input::CallGone(4));
    story.tell(Input::Ran(Step::Update, Ok(None)));
    assert!(story.answered(3));
    assert!(!story.said(&Effect::Run(Run::Pause)), "{:?}", story.said);
}

#[test]
fn a_created_container_whose_exec_outlives_it_is_deleted_in_time() {
    let mut story = Story::running(false, false);
    story.container.init = InitState::Alive {
        pid: 100,
        phase: crate::process::Phase::Created,
        died: None,
    };
    let (id, io) = ("e".to_owned(), IoPaths::default());
    story.ask(
        3,
        Command::Exec {
            id,
            io,
            spec: Vec::new(),
        },
    );
    story.ask(4, Command::Start(Target::Exec("e".into())));
    story.tell(Input::StdioOpened(Target::Exec("e".into()), Ok(())));
    story.tell(Input::Ran(Step::Exec("e".into()), Ok(Some(101))));
    story.tell(Input::Drained(Target::Init));
    story.ask(5, Command::Delete(Target::Init));
    story.exits(Target::Init);
    story.tell(Input::Ran(Step::Delete, Ok(None)));
    assert!(!story.answered(5));
    story.tell(Input::Timer(Timer::AwaitExit));
    assert!(story.answered(5), "{:?}", story.said);
}

#[test]
fn a_restore_that_failed_is_deleted_from_the_runtime_too() {
    let mut story = Story::running(true, true);
    story.ask(2, Command::Start(Target::Init));
    story.tell(Input::StdioOpened(Target::Init, Ok(())));
    story.tell(Input::Ran(Step::Restore, Err(failed(true))));
    assert!(story.answered(2));
    story.ask(3, Command::Delete(Target::Init));
    assert!(
        story.said(&Effect::Run(Run::Delete { force: true })),
        "{:?}",
        story.said
    );
    story.tell(Input::Ran(Step::Delete, Ok(None)));
    assert!(story.answered(3));
}

#[test]
fn a_second_restore_is_drained_like_the_first() {
    let mut story = Story::running(true, true);
    story.ask(2, Command::Start(Target::Init));
    story.tell(Input::StdioOpened(Target::Init, Ok(())));
    story.tell(Input::Drained(Target::Init));
    story.tell(Input::Ran(Step::Restore, Err(failed(false))));
    story.ask(3, Command::Start(Target::Init));
    story.tell(Input::StdioOpened(Target::Init, Ok(())));
    story.tell(Input::Ran(Step::Restore, Ok(Some(100))));
    story.exits(Target::Init);
    story.ask(4, Command::Delete(Target::Init));
    story.tell(Input::Ran(Step::Delete, Ok(None)));
    assert!(!story.answered(4), "its output has not drained yet");
    story.tell(Input::Drained(Target::Init));
    assert!(story.answered(4));
}

#[test]
fn a_runtime_that_hangs_in_the_delete_of_a_broken_container_is_killed() {
    let mut story = Story::running(false, true);
    let mut out = Vec::new();
    story.container.break_down(SystemTime::UNIX_EPOCH, &mut out);
    story.ask(3, Command::Delete(Target::Init));
    assert!(story.said(&Effect::Arm(Timer::StopDelete)));
    story.tell(Input::Timer(Timer::StopDelete));
    assert!(story.said(&Effect::KillRun(Step::Destroy)));
    story.tell(Input::Ran(Step::Destroy, Err(failed(true))));
    assert!(story.answered(3));
}

#[test]
fn what_a_pause_froze_after_inits_death_is_thawed() {
    let mut story = Story::running(false, false);
    story.ask(3, Command::Pause);
    story.exits(Target::Init);
    assert!(story.said(&Effect::Run(Run::KillRest)));
    assert!(!story.said(&Effect::Run(Run::Thaw)));
    story.tell(Input::Ran(Step::Pause, Ok(None)));
    assert!(story.said(&Effect::Run(Run::Thaw)), "{:?}", story.said);
}

#[test]
fn an_exit_that_was_made_up_is_not_told_again_by_a_broken_container() {
    let mut story = Story::running(false, true);
    story.container.init = InitState::Alive {
        pid: 100,
        phase: crate::process::Phase::Created,
        died: None,
    };
    story.ask(3, Command::Delete(Target::Init));
    story.tell(Input::Ran(Step::Delete, Ok(None)));
    story.tell(Input::Timer(Timer::AwaitExit));
    assert!(matches!(story.container.init, InitState::Stopped { .. }));
    let mut out = Vec::new();
    story.container.break_down(SystemTime::UNIX_EPOCH, &mut out);
    story.exits(Target::Init);
    assert!(story.said.is_empty(), "{:?}", story.said);
}
