//! Readers of output that stop for good, close, or never open their FIFO: they cost what is written
//! to them, and nothing else. The process ends, Delete answers, and nothing is left.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use wherry_integration::prelude::*;

/// What a reader does that is no good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Stops,
    Closes,
    NeverOpens,
}

/// More than the FIFO and the pipe before it hold together.
const MUCH: &str = "yes | head -c 3000000";
/// Fits into the FIFO.
const LITTLE: &str = "echo little";

fn fifo(bed: &Bed, reader: Reader, name: &str) -> OutputFifo {
    let path = bed.fifo(name);
    match reader {
        Reader::NeverOpens => OutputFifo::unread(&path),
        Reader::Stops => {
            let fifo = OutputFifo::read(&path);
            fifo.stop();
            fifo
        }
        Reader::Closes => OutputFifo::read(&path),
    }
}

/// A container or an exec of it whose standard output has such a reader, from start to delete.
fn reader(reader: Reader, script: &str, exec: bool) {
    if !exec {
        known_difference!("v1", "the v1 flavour has one container per shim");
    }
    if reader == Reader::NeverOpens {
        known_difference!("go", "Create waits for the readers, up to 30 s (row 20)");
    }
    if script == MUCH {
        known_difference!("go", "a Delete waits for the readers without an end");
    }
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c0", &Spec::sleeper().annotation(GROUP, "c0"));
    let other = bed.bundle("c1", &Spec::sh(script).annotation(GROUP, "c0"));
    let before = Leaks::of_shim(shim.pid);
    let out = fifo(&bed, reader, "out");
    let (id, process, owner) = if exec {
        let mut request = bundle.exec("e1", &["sh", "-c", script]);
        request.stdout = out.path();
        request.stderr = bed.drain();
        shim.task.exec(&request).unwrap();
        ("c0", "e1", "c0/e1")
    } else {
        let request = other.create_with("", &out.path(), &bed.drain());
        shim.task.create(&request).unwrap();
        ("c1", "", "c1")
    };
    shim.task.patience(SHORT).start(id, process).unwrap();
    if reader == Reader::Closes {
        out.close();
    }
    // The shim keeps a FIFO open for a reader that comes back, so it fills up without one too:
    // then the process has to be killed, as a user would.
    let blocked = script == MUCH;
    if blocked {
        let state = || shim.task.state(id, process).unwrap().status();
        assert!(!holds(Duration::from_millis(300), || state() == Status::STOPPED));
        shim.task.kill(id, process, 9, false).unwrap();
    }
    let status = shim
        .task
        .patience(LONG)
        .wait(id, process)
        .unwrap()
        .exit_status;
    assert_eq!(status, if blocked { 137 } else { 0 }, "{reader:?}");
    let deleted = shim.task.patience(LONG).delete(id, process).unwrap();
    assert_eq!(deleted.exit_status, status);
    let exit = format!("exit {owner} {status}");
    bed.sink().wait_brief(&exit);
    let exits = bed.sink().briefs();
    assert_eq!(exits.iter().filter(|b| **b == exit).count(), 1, "{exits:?}");
    // The other container never noticed, and the shim holds nothing of it.
    assert_eq!(shim.task.state("c0", "").unwrap().status(), Status::RUNNING);
    out.close();
    known_difference!(
        "go",
        "descriptors and threads come and go with its scheduler"
    );
    let mut left = Vec::new();
    let same = holds(LONG, || {
        left = Leaks::of_shim(shim.pid).compare(&before);
        left.is_empty()
    });
    assert!(same, "{reader:?}: {left:?}");
    bed.discard(&other);
    bed.finish(&bundle, &shim);
}

/// The annotation that puts containers into one shim.
const GROUP: &str = "io.containerd.runc.v2.group";

macro_rules! readers {
    ($($name:ident: $reader:ident, $script:ident;)*) => {
        mod of_an_init {
            use super::*;
            $(#[test] fn $name() { reader(Reader::$reader, $script, false); })*
        }
        mod of_an_exec {
            use super::*;
            $(#[test] fn $name() { reader(Reader::$reader, $script, true); })*
        }
    };
}

readers! {
    that_stops_blocks_the_process_until_it_is_killed: Stops, MUCH;
    that_stops_and_has_little_to_read_holds_nothing_up: Stops, LITTLE;
    that_closes_blocks_the_process_until_it_is_killed: Closes, MUCH;
    that_closes_and_had_little_to_read_holds_nothing_up: Closes, LITTLE;
    that_never_opens_blocks_the_process_until_it_is_killed: NeverOpens, MUCH;
    that_never_opens_and_has_little_to_read_holds_nothing_up: NeverOpens, LITTLE;
}
