//! A panic in the middle of an input stays with its container (DESIGN rule 9). Here, outside of a
//! `LocalSet`, whatever starts a task panics.

use std::time::SystemTime;

use super::*;
use crate::container::Run;

fn supervisor() -> Supervisor {
    let (listener, _) = sys::pipe::pipe().unwrap();
    let args = ServeArgs {
        flavor: Flavor::V2,
        namespace: "ns".into(),
        id: "c1".into(),
        address: String::new(),
        debug: false,
        listener,
    };
    let mut supervisor = Supervisor::new(&args, mpsc::unbounded_channel().0, None);
    supervisor.publisher = Publisher::new(None, "ns");
    supervisor
}

/// Asks for a container, whose preparation panics: its answer.
fn create(supervisor: &mut Supervisor, call: CallId, id: &str) -> oneshot::Receiver<Outcome> {
    let (reply, answer) = oneshot::channel();
    let request = CreateRequest {
        id: id.into(),
        bundle: "/".into(),
        mounts: Vec::new(),
        io: crate::container::IoPaths::default(),
        checkpoint: String::new(),
        parent_checkpoint: String::new(),
        options: crate::runc::RuncOptions {
            binary_name: "/bin/true".into(),
            ..Default::default()
        },
    };
    supervisor.message(Message::Call(
        call,
        Request::Create(Box::new(request)),
        reply,
    ));
    supervisor.settle_inbox();
    answer
}

#[test]
fn an_effect_that_panics_costs_neither_the_answer_nor_the_next_effects() {
    let mut supervisor = supervisor();
    let refusal = create(&mut supervisor, 1, "c1").try_recv().unwrap();
    assert!(refusal.unwrap_err().message.contains("c1 is broken"));

    let (reply, mut answer) = oneshot::channel();
    let pending = PendingCall {
        reply,
        bundle: String::new(),
    };
    supervisor.calls.insert(7, pending);
    let key = supervisor.key_of("c1").unwrap();
    let effects = vec![
        crate::container::Effect::Prepare,
        crate::container::Effect::Reply(7, Ok(Reply::Empty)),
    ];
    supervisor.contain(key, |own| own.carry_out(key, effects));
    assert!(answer.try_recv().unwrap().is_ok());
}

#[test]
fn a_panic_at_the_end_of_a_run_stays_with_its_container() {
    let mut supervisor = supervisor();
    drop(create(&mut supervisor, 1, "c1"));
    let key = supervisor.key_of("c1").unwrap();
    let run = Run::Checkpoint(crate::container::CheckpointCommand::default());
    supervisor.start_run(key, &run);
    let running = &supervisor.containers[&key].host.runs[&Step::Checkpoint];
    let pid = running.child.pid;
    sys::wait::wait_pid(pid).unwrap();
    // Its end is carried on by a task.
    supervisor.exited(ExitNotice {
        pid,
        status: 0,
        exited_at: SystemTime::now(),
    });
    assert!(supervisor.containers.contains_key(&key));
}
