//! Both state machines, cell by cell: every call on every state, with class and text.
//!
//! Refusals carry the class Unknown on purpose: clients match their text.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use serde_json::json;
use wherry_integration::prelude::*;

/// The states of an init.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Init {
    Created,
    Running,
    Paused,
    Stopped,
    Deleted,
}

/// The states of an exec.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Exec {
    Created,
    Running,
    Stopped,
    Deleted,
}

/// The calls of both tables.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    Start,
    Pause,
    Resume,
    Update,
    Checkpoint,
    Exec,
    Kill,
    Delete,
    Resize,
    State,
    CloseIo,
}

/// What a cell says.
#[derive(Clone, Copy, Debug)]
enum Cell {
    /// It works.
    Fine,
    /// A refusal of the state machine: class Unknown, exactly this text.
    Refused(&'static str),
    /// Class NotFound, text that starts with this.
    Missing(&'static str),
    /// This class, text that starts with this.
    Error(Code, &'static str),
}

const NO_CONTAINER: &str = "container not created: not found";

fn run(op: Op, shim: &Shim, bundle: &Bundle, bed: &Bed, exec: &str) -> Result<(), CallError> {
    let task = &shim.task;
    let id = &bundle.id;
    match op {
        Op::Start => task.start(id, exec).map(drop),
        Op::Pause => task.pause(id).map(drop),
        Op::Resume => task.resume(id).map(drop),
        Op::Update => task.update(id, &json!({"cpu": {"shares": 512}})).map(drop),
        Op::Checkpoint => task.checkpoint(id, &bed.path("image")).map(drop),
        Op::Exec => task.exec(&bundle.exec("e1", &["true"])).map(drop),
        Op::Kill => task.kill(id, exec, 9, false).map(drop),
        Op::Delete => task.delete(id, exec).map(drop),
        Op::Resize => task.resize(id, exec, 80, 24).map(drop),
        Op::State => task.state(id, exec).map(drop),
        Op::CloseIo => task.close_io(id, exec).map(drop),
    }
}

#[track_caller]
fn check(cell: Cell, got: &Result<(), CallError>) {
    match (cell, got) {
        (Cell::Fine, Ok(())) => {}
        (Cell::Refused(text), Err(e)) => {
            assert_eq!((e.code(), e.message()), (Some(Code::UNKNOWN), text));
        }
        (Cell::Missing(text), Err(e)) => {
            assert_eq!(e.code(), Some(Code::NOT_FOUND), "{e}");
            assert!(e.message().starts_with(text), "{e}");
        }
        (Cell::Error(code, text), Err(e)) => {
            assert_eq!(e.code(), Some(code), "{e}");
            assert!(e.message().starts_with(text), "{e}");
        }
        (cell, got) => panic!("expected {cell:?}, got {got:?}"),
    }
}

fn init_cell(state: Init, op: Op, cell: Cell) {
    if state == Init::Deleted {
        known_difference!(
            "go-v1",
            "Go's v1 keeps the deleted process and answers its state"
        );
    }
    let bed = Bed::new();
    let (bundle, shim) = bed.created("c1", &Spec::sleeper());
    let task = &shim.task;
    if state != Init::Created {
        task.start("c1", "").unwrap();
    }
    match state {
        Init::Created | Init::Running => {}
        Init::Paused => drop(task.pause("c1").unwrap()),
        Init::Stopped | Init::Deleted => {
            task.kill("c1", "", 9, false).unwrap();
            task.wait("c1", "").unwrap();
        }
    }
    if state == Init::Deleted {
        task.delete("c1", "").unwrap();
    }
    let before = task.state("c1", "").map(|s| s.status());
    let got = run(op, &shim, &bundle, &bed, "");
    check(cell, &got);
    if got.is_err() {
        let after = task.state("c1", "").map(|s| s.status());
        assert_eq!(before, after, "a refusal changes nothing");
    }
    if state == Init::Deleted || (op == Op::Delete && got.is_ok()) {
        bed.shut(&bundle, &shim);
    } else {
        if state == Init::Paused && got.is_err() {
            // A frozen process on cgroup v1 dies only once it is thawed.
            task.resume("c1").unwrap();
        }
        bed.end(&bundle, &shim);
    }
    bed.remove(&bundle);
    bed.assert_clean();
}

fn exec_cell(state: Exec, op: Op, cell: Cell) {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let task = &shim.task;
    let program: &[&str] = if state == Exec::Running || state == Exec::Created {
        &["sleep", "1000"]
    } else {
        &["true"]
    };
    task.exec(&bundle.exec("e1", program)).unwrap();
    if state != Exec::Created {
        task.start("c1", "e1").unwrap();
    }
    if matches!(state, Exec::Stopped | Exec::Deleted) {
        task.wait("c1", "e1").unwrap();
    }
    if state == Exec::Deleted {
        task.delete("c1", "e1").unwrap();
    }
    let before = task.state("c1", "e1").map(|s| s.status());
    let got = run(op, &shim, &bundle, &bed, "e1");
    check(cell, &got);
    if got.is_err() {
        let after = task.state("c1", "e1").map(|s| s.status());
        assert_eq!(before, after, "a refusal changes nothing");
    }
    bed.finish(&bundle, &shim);
}

macro_rules! init_cells {
    ($($name:ident: $op:ident on $state:ident => $cell:expr;)*) => {
        mod init {
            use super::{Cell::{Fine, Missing, Refused}, Init, NO_CONTAINER, Op, init_cell};
            $(#[test]
            fn $name() {
                init_cell(Init::$state, Op::$op, $cell);
            })*
        }
    };
}

macro_rules! exec_cells {
    ($($name:ident: $op:ident on $state:ident => $cell:expr;)*) => {
        mod exec {
            use super::{Cell::{Error, Fine, Missing, Refused}, Code, Exec, Op, exec_cell};
            $(#[test]
            fn $name() {
                exec_cell(Exec::$state, Op::$op, $cell);
            })*
        }
    };
}

init_cells! {
    start_created: Start on Created => Fine;
    start_running: Start on Running => Refused("cannot start a running process");
    start_paused: Start on Paused => Refused("cannot start a paused process");
    start_stopped: Start on Stopped => Refused("cannot start a stopped process");
    start_deleted: Start on Deleted => Missing(NO_CONTAINER);
    pause_created: Pause on Created => Refused("cannot pause task in created state");
    pause_running: Pause on Running => Fine;
    pause_paused: Pause on Paused => Refused("cannot pause a paused container");
    pause_stopped: Pause on Stopped => Refused("cannot pause a stopped container");
    pause_deleted: Pause on Deleted => Missing(NO_CONTAINER);
    resume_created: Resume on Created => Refused("cannot resume task in created state");
    resume_running: Resume on Running => Refused("cannot resume a running process");
    resume_paused: Resume on Paused => Fine;
    resume_stopped: Resume on Stopped => Refused("cannot resume a stopped container");
    resume_deleted: Resume on Deleted => Missing(NO_CONTAINER);
    update_created: Update on Created => Fine;
    update_running: Update on Running => Fine;
    update_paused: Update on Paused => Fine;
    update_stopped: Update on Stopped => Refused("cannot update a stopped container");
    update_deleted: Update on Deleted => Missing(NO_CONTAINER);
    checkpoint_created: Checkpoint on Created => Refused("cannot checkpoint a task in created state");
    checkpoint_stopped: Checkpoint on Stopped => Refused("cannot checkpoint a stopped container");
    checkpoint_deleted: Checkpoint on Deleted => Missing(NO_CONTAINER);
    exec_created: Exec on Created => Fine;
    exec_running: Exec on Running => Fine;
    exec_paused: Exec on Paused => Refused("cannot exec in a paused state");
    exec_stopped: Exec on Stopped => Refused("cannot exec in a stopped state");
    exec_deleted: Exec on Deleted => Missing(NO_CONTAINER);
    kill_created: Kill on Created => Fine;
    kill_running: Kill on Running => Fine;
    kill_paused: Kill on Paused => Fine;
    kill_stopped: Kill on Stopped => Missing("");
    kill_deleted: Kill on Deleted => Missing(NO_CONTAINER);
    delete_created: Delete on Created => Fine;
    delete_running: Delete on Running => Refused("cannot delete a running process");
    delete_paused: Delete on Paused => Refused("cannot delete a paused process");
    delete_stopped: Delete on Stopped => Fine;
    state_created: State on Created => Fine;
    state_running: State on Running => Fine;
    state_paused: State on Paused => Fine;
    state_stopped: State on Stopped => Fine;
    state_deleted: State on Deleted => Missing(NO_CONTAINER);
    resize_without_a_terminal_running: Resize on Running => Fine;
    close_io_created: CloseIo on Created => Fine;
    close_io_running: CloseIo on Running => Fine;
    close_io_deleted: CloseIo on Deleted => Missing(NO_CONTAINER);
}

exec_cells! {
    start_created: Start on Created => Fine;
    start_running: Start on Running => Refused("cannot start a running process");
    start_stopped: Start on Stopped => Refused("cannot start a stopped process");
    start_deleted: Start on Deleted => Missing("process does not exist e1");
    kill_created: Kill on Created => Error(Code::FAILED_PRECONDITION, "process not created");
    kill_running: Kill on Running => Fine;
    kill_stopped: Kill on Stopped => Missing("process already finished");
    kill_deleted: Kill on Deleted => Missing("process does not exist e1");
    delete_created: Delete on Created => Fine;
    delete_running: Delete on Running => Refused("cannot delete a running process");
    delete_stopped: Delete on Stopped => Fine;
    resize_created: Resize on Created => Fine;
    resize_running: Resize on Running => Fine;
    resize_stopped: Resize on Stopped => Refused("cannot resize a stopped container");
    resize_deleted: Resize on Deleted => Missing("process does not exist e1");
    state_created: State on Created => Fine;
    state_running: State on Running => Fine;
    state_stopped: State on Stopped => Fine;
    state_deleted: State on Deleted => Missing("process does not exist e1");
    close_io_created: CloseIo on Created => Fine;
    close_io_running: CloseIo on Running => Fine;
    close_io_stopped: CloseIo on Stopped => Fine;
}

/// Checkpoint of a running container is a matter of criu, not of the state machine.
#[test]
fn init_checkpoint_running_and_paused() {
    let criu = target::criu();
    skip_unless!(criu.is_ok(), criu.unwrap_err());
    init_cell(Init::Running, Op::Checkpoint, Cell::Fine);
    init_cell(Init::Paused, Op::Checkpoint, Cell::Fine);
}

/// Delete of a deleted init or exec: the tombstone answers again what the first Delete answered.
#[test]
fn delete_deleted() {
    known_difference!(
        "go",
        "a second Delete is NotFound in Go (rows 14 and 15 of the complaints)"
    );
    init_cell(Init::Deleted, Op::Delete, Cell::Fine);
    exec_cell(Exec::Deleted, Op::Delete, Cell::Fine);
}

#[test]
fn the_states_of_an_exec_are_told() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let task = &shim.task;
    task.exec(&bundle.exec("e1", &["sleep", "1000"])).unwrap();
    let state = task.state("c1", "e1").unwrap();
    assert_eq!((state.status(), state.pid), (Status::CREATED, 0));
    assert_eq!(state.id, "e1", "the id of an exec's state is the exec's");
    assert_eq!(state.exec_id, "", "and its exec_id is unset");
    let pid = task.start("c1", "e1").unwrap().pid;
    let state = task.state("c1", "e1").unwrap();
    assert_eq!((state.status(), state.pid), (Status::RUNNING, pid));
    task.pause("c1").unwrap();
    let status = task.state("c1", "e1").unwrap().status();
    assert_eq!(
        status,
        Status::PAUSED,
        "an exec is paused with its container"
    );
    task.resume("c1").unwrap();
    task.kill("c1", "e1", 9, false).unwrap();
    assert_eq!(task.wait("c1", "e1").unwrap().exit_status, 137);
    let state = task.state("c1", "e1").unwrap();
    assert_eq!((state.status(), state.exit_status), (Status::STOPPED, 137));
    let deleted = task.delete("c1", "e1").unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 137));
    bed.finish(&bundle, &shim);
}

#[test]
fn an_exec_start_after_the_inits_end_is_refused() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let task = &shim.task;
    task.exec(&bundle.exec("e1", &["true"])).unwrap();
    task.kill("c1", "", 9, false).unwrap();
    task.wait("c1", "").unwrap();
    let error = task.start("c1", "e1").unwrap_err();
    if target::flavor() == target::Flavor::Go {
        // 1.6.20 lets runc refuse; the class came with the backports of 2023 and 2024.
        assert!(error.code().is_some(), "{error}");
    } else {
        assert_eq!(error.code(), Some(Code::FAILED_PRECONDITION), "{error}");
        assert!(
            error
                .message()
                .starts_with("container c1 init process is not running"),
            "{error}"
        );
    }
    bed.finish(&bundle, &shim);
}
