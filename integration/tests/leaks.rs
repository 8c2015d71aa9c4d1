//! Many cycles of everything: what a shim holds afterwards is what it held before.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use wherry_integration::prelude::*;

/// Waits until the shim's descriptors, threads and children are those of before.
fn back_to(before: &Leaks, shim: &Shim) {
    let mut more = Vec::new();
    let back = holds(SHORT, || {
        more = Leaks::of_shim(shim.pid).compare(before);
        more.is_empty()
    });
    assert!(back, "the shim holds more than before: {more:#?}");
}

/// Go's threads and descriptors come and go with its scheduler: only the bed's picture counts.
fn go() -> bool {
    target::flavor() == target::Flavor::Go
}

/// Execs with FIFOs, `count` of them, each deleted.
fn execs(bed: &Bed, bundle: &Bundle, shim: &Shim, count: usize, terminal: bool) {
    for n in 0..count {
        let exec = format!("e{n}");
        let out = OutputFifo::read(&bed.fifo("out"));
        let spec = if terminal {
            Spec::sh("echo hi").terminal()
        } else {
            Spec::sh("echo hi")
        };
        let mut request = bundle.exec_spec(&exec, &spec);
        request.stdout = out.path();
        if !terminal {
            request.stderr = bed.drain();
        }
        shim.task.exec(&request).unwrap();
        shim.task.start("c1", &exec).unwrap();
        shim.task.wait("c1", &exec).unwrap();
        out.wait_end(SHORT);
        assert_eq!(out.text().trim_end(), "hi");
        shim.task.delete("c1", &exec).unwrap();
        std::fs::remove_file(out.path()).unwrap();
    }
}

#[test]
fn forty_execs_leave_no_descriptor_thread_or_child() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    execs(&bed, &bundle, &shim, 2, false);
    let before = Leaks::of_shim(shim.pid);
    execs(&bed, &bundle, &shim, 40, false);
    if !go() {
        back_to(&before, &shim);
    }
    bed.finish(&bundle, &shim);
}

#[test]
fn twenty_execs_with_terminals_leave_no_descriptor_thread_or_child() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    execs(&bed, &bundle, &shim, 2, true);
    let before = Leaks::of_shim(shim.pid);
    execs(&bed, &bundle, &shim, 20, true);
    if !go() {
        back_to(&before, &shim);
    }
    bed.finish(&bundle, &shim);
}

#[test]
fn ten_containers_in_ten_shims_leave_nothing() {
    let bed = Bed::new();
    for n in 0..10 {
        let id = format!("c{n}");
        let (bundle, shim) = bed.shim(&id, &Spec::sh("echo hi; exit 1"));
        let out = OutputFifo::read(&bed.fifo(&format!("out{n}")));
        shim.task
            .create(&bundle.create_with("", &out.path(), &bed.drain()))
            .unwrap();
        shim.task.start(&id, "").unwrap();
        assert_eq!(shim.task.wait(&id, "").unwrap().exit_status, 1);
        out.wait_end(SHORT);
        bed.end(&bundle, &shim);
        bed.remove(&bundle);
    }
    bed.assert_clean();
}

#[test]
fn twenty_containers_through_one_shim_leave_nothing_in_it() {
    known_difference!("v1", "the v1 flavour has one container per shim");
    let bed = Bed::new();
    let group = |s: Spec| s.annotation("io.containerd.runc.v2.group", "pod");
    bed.note_group("pod");
    let (first, shim) = bed.running("c0", &group(Spec::sleeper()));
    let cycle = |n: usize| {
        let id = format!("c{n}");
        let bundle = bed.bundle(&id, &group(Spec::sh("exit 0")));
        shim.task.create(&bundle.create()).unwrap();
        shim.task.start(&id, "").unwrap();
        shim.task.wait(&id, "").unwrap();
        shim.task.delete(&id, "").unwrap();
        bed.remove(&bundle);
    };
    (1..3).for_each(cycle);
    let before = Leaks::of_shim(shim.pid);
    (3..23).for_each(cycle);
    if !go() {
        back_to(&before, &shim);
    }
    bed.end(&first, &shim);
    bed.remove(&first);
    bed.assert_clean();
}

#[test]
fn a_hundred_connections_leave_no_descriptor() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    shim.task.another().state("c1", "").unwrap();
    let before = Leaks::of_shim(shim.pid);
    let count = || host::descriptors(shim.pid).len();
    let descriptors = count();
    for _ in 0..100 {
        shim.task.another().state("c1", "").unwrap();
    }
    eventually(SHORT, "the descriptors are closed", || {
        count() <= descriptors
    });
    if !go() {
        back_to(&before, &shim);
    }
    bed.finish(&bundle, &shim);
}

#[test]
fn failed_creates_leave_nothing() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::new(&["/no/such/program"]));
    let out = OutputFifo::read(&bed.fifo("out"));
    let request = bundle.create_with("", &out.path(), &bed.drain());
    shim.task.create(&request).unwrap_err();
    let before = Leaks::of_shim(shim.pid);
    for _ in 0..10 {
        shim.task.create(&request).unwrap_err();
    }
    if !go() {
        back_to(&before, &shim);
    }
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn nothing_that_a_container_inherits_belongs_to_the_shim() {
    // Descriptors of the shim in a container would be a way out of it.
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("ls -l /proc/self/fd >&2; sleep 1000"));
    let (out, err) = (
        OutputFifo::read(&bed.fifo("out")),
        OutputFifo::read(&bed.fifo("err")),
    );
    shim.task
        .create(&bundle.create_with("", &out.path(), &err.path()))
        .unwrap();
    let pid = i32::try_from(shim.task.start("c1", "").unwrap().pid).unwrap();
    err.wait_text(SHORT, "2 ->");
    let held = host::descriptors(pid);
    // 10 is busybox sh's own.
    assert!(held.iter().all(|(fd, _)| *fd <= 2 || *fd == 10), "{held:?}");
    bed.finish(&bundle, &shim);
}
