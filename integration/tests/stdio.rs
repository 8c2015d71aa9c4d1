//! Standard streams: FIFOs, files, loggers, terminals, and readers of every habit.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use wherry_integration::prelude::*;

/// Output FIFOs of one process, read from the start.
fn outputs(bed: &Bed) -> (OutputFifo, OutputFifo) {
    (
        OutputFifo::read(&bed.fifo("out")),
        OutputFifo::read(&bed.fifo("err")),
    )
}

fn start(shim: &Shim, bundle: &Bundle, stdin: &str, stdout: &str, stderr: &str) {
    shim.task
        .create(&bundle.create_with(stdin, stdout, stderr))
        .unwrap_or_else(|e| panic!("{e}"));
    shim.task
        .start(&bundle.id, "")
        .unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn both_outputs_arrive_apart_and_end() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("echo to out; echo to err >&2"));
    let (out, err) = outputs(&bed);
    start(&shim, &bundle, "", &out.path(), &err.path());
    out.wait_end(SHORT);
    err.wait_end(SHORT);
    assert_eq!(
        (out.text().as_str(), err.text().as_str()),
        ("to out\n", "to err\n")
    );
    bed.finish(&bundle, &shim);
}

#[test]
fn without_stdio_the_process_has_dev_null() {
    let bed = Bed::new();
    let script = "for n in 0 1 2; do readlink /proc/self/fd/$n; done > /tmp/fds";
    let (bundle, shim) = bed.running("c1", &Spec::sh(script));
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 0);
    bed.end(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn standard_input_arrives_and_close_io_ends_it() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::new(&["cat"]));
    let mut input = InputFifo::new(&bed.fifo("in"));
    let (out, err) = outputs(&bed);
    start(&shim, &bundle, &input.path(), &out.path(), &err.path());
    input.open();
    input.write("first\n");
    out.wait_text(SHORT, "first\n");
    input.write("second\n");
    out.wait_text(SHORT, "second\n");
    // The shim holds a writing end: the client's going away alone ends nothing.
    input.close();
    input.open();
    input.write("third\n");
    out.wait_text(SHORT, "third\n");
    shim.task.close_io("c1", "").unwrap();
    input.close();
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 0);
    out.wait_end(SHORT);
    assert_eq!(out.text(), "first\nsecond\nthird\n");
    bed.finish(&bundle, &shim);
}

#[test]
fn an_execs_standard_input_arrives_and_close_io_ends_it() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let mut input = InputFifo::new(&bed.fifo("in"));
    let (out, err) = outputs(&bed);
    let mut request = bundle.exec("e1", &["cat"]);
    request.stdin = input.path();
    request.stdout = out.path();
    request.stderr = err.path();
    shim.task.exec(&request).unwrap();
    shim.task.start("c1", "e1").unwrap();
    input.open();
    input.write("hello\n");
    out.wait_text(SHORT, "hello\n");
    shim.task.close_io("c1", "e1").unwrap();
    input.close();
    assert_eq!(shim.task.wait("c1", "e1").unwrap().exit_status, 0);
    bed.finish(&bundle, &shim);
}

#[test]
fn hundred_megabytes_arrive_to_the_last_byte() {
    let bed = Bed::new();
    let script = "dd if=/dev/urandom of=/tmp/d bs=1M count=4 2>/dev/null; \
        n=0; while [ $n -lt 25 ]; do cat /tmp/d; n=$((n+1)); done; \
        n=0; while [ $n -lt 25 ]; do cat /tmp/d; n=$((n+1)); done | sha256sum >&2";
    let (bundle, shim) = bed.shim("c1", &Spec::sh(script));
    let out = OutputFifo::digest_only(&bed.fifo("out"));
    let err = OutputFifo::read(&bed.fifo("err"));
    start(&shim, &bundle, "", &out.path(), &err.path());
    // How long it takes says nothing here; a busy machine may need minutes.
    let ended = shim.task.patience(LONG * 6).wait("c1", "");
    assert_eq!(ended.unwrap().exit_status, 0);
    out.wait_end(LONG);
    err.wait_end(LONG);
    assert_eq!(out.total(), 100 << 20);
    assert_eq!(
        err.text().split_whitespace().next(),
        Some(out.sha256().as_str())
    );
    bed.finish(&bundle, &shim);
}

#[test]
fn a_reader_that_is_late_finds_everything() {
    known_difference!("go", "Create waits for the readers, up to 30 s (row 20)");
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("echo early; echo bird >&2"));
    let out = OutputFifo::unread(&bed.fifo("out"));
    let err = OutputFifo::unread(&bed.fifo("err"));
    start(&shim, &bundle, "", &out.path(), &err.path());
    shim.task.wait("c1", "").unwrap();
    out.start_reading();
    err.start_reading();
    out.wait_text(SHORT, "early\n");
    err.wait_text(SHORT, "bird\n");
    bed.finish(&bundle, &shim);
}

#[test]
fn a_reader_that_stops_blocks_its_writer_and_nothing_else() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("yes | head -c 4000000; echo done >&2"));
    let (out, err) = outputs(&bed);
    out.stop();
    start(&shim, &bundle, "", &out.path(), &err.path());
    assert!(!holds(Duration::from_millis(300), || err
        .text()
        .contains("done")));
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    shim.task.exec(&bundle.exec("e1", &["true"])).unwrap();
    shim.task.start("c1", "e1").unwrap();
    assert_eq!(shim.task.wait("c1", "e1").unwrap().exit_status, 0);
    out.go_on();
    err.wait_text(LONG, "done");
    out.wait_end(LONG);
    assert_eq!(out.total(), 4_000_000);
    bed.finish(&bundle, &shim);
}

#[test]
fn a_reader_may_go_and_another_come() {
    // What a containerd restart looks like to a shim.
    let bed = Bed::new();
    let script = "echo one; while ! [ -e /tmp/go ]; do usleep 20000; done; echo two";
    let (bundle, shim) = bed.shim("c1", &Spec::sh(script));
    let (out, err) = outputs(&bed);
    start(&shim, &bundle, "", &out.path(), &err.path());
    out.wait_text(SHORT, "one\n");
    out.close();
    std::fs::write(bundle.rootfs().join("tmp/go"), "").unwrap();
    shim.task.wait("c1", "").unwrap();
    shim.task.state("c1", "").unwrap();
    bed.finish(&bundle, &shim);
}

#[test]
fn a_missing_fifo_path_is_an_error_of_create_and_rolls_back() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let nowhere = bed.path("no/such/fifo").display().to_string();
    let error = shim
        .task
        .create(&bundle.create_with(&nowhere, &nowhere, &nowhere))
        .unwrap_err();
    assert!(error.code().is_some(), "{error}");
    known_difference!(
        "go",
        "a failure after runc create leaves the container (row 16)"
    );
    assert!(error.message().contains("no/such/fifo"), "{error}");
    eventually(SHORT, "rolled back", || {
        host::cgroup_members(&bundle.cgroup).is_empty()
    });
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn one_output_may_be_left_out() {
    known_difference!("go", "Go opens the empty path and fails");
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("echo one; echo two >&2"));
    let out = OutputFifo::read(&bed.fifo("out"));
    start(&shim, &bundle, "", &out.path(), "");
    out.wait_end(SHORT);
    assert_eq!(out.text(), "one\n");
    bed.finish(&bundle, &shim);
}

#[test]
fn plain_files_are_appended_to() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("echo new; echo err >&2"));
    let (out, err) = (bed.path("out.log"), bed.path("err.log"));
    std::fs::write(&out, "old\n").unwrap();
    std::fs::write(&err, "").unwrap();
    start(&shim, &bundle, "", &text(&out), &text(&err));
    shim.task.wait("c1", "").unwrap();
    bed.finish(&bundle, &shim);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "old\nnew\n");
    assert_eq!(std::fs::read_to_string(&err).unwrap(), "err\n");
}

#[test]
fn one_plain_file_takes_both_streams_in_order() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim(
        "c1",
        &Spec::sh("echo a; usleep 50000; echo b >&2; usleep 50000; echo c"),
    );
    let out = bed.path("both.log");
    std::fs::write(&out, "").unwrap();
    start(&shim, &bundle, "", &text(&out), &text(&out));
    shim.task.wait("c1", "").unwrap();
    bed.finish(&bundle, &shim);
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "a\nb\nc\n");
}

#[test]
fn a_file_address_makes_its_folders_and_takes_both_streams() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("echo a; usleep 50000; echo b >&2"));
    let out = bed.path("deep/er/container.log");
    let address = format!("file://{}", out.display());
    start(&shim, &bundle, "", &address, &address);
    shim.task.wait("c1", "").unwrap();
    bed.finish(&bundle, &shim);
    if std::fs::read_to_string(&out).unwrap() == "a\n" {
        known_difference!("go-v1", "the v1 shim does not always drain before it ends");
    }
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "a\nb\n");
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&out), 0o644);
    assert_eq!(mode(out.parent().unwrap()), 0o755);
}

#[test]
fn an_unknown_scheme_is_refused_by_name() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let address = "carrier-pigeon:///loft";
    let error = shim
        .task
        .create(&bundle.create_with("", address, address))
        .unwrap_err();
    assert!(error.message().contains("unknown STDIO scheme"), "{error}");
    assert!(error.message().contains("carrier-pigeon"), "{error}");
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A logger that copies its descriptor 3 to one file and 4 to another, and tells how it was run.
fn logger(bed: &Bed, script: &str) -> PathBuf {
    let path = bed.path("logger");
    let script = format!("#!/bin/sh\nD={}\n{script}\n", bed.dir().display());
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_logger_gets_both_streams_its_arguments_and_its_environment() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("echo a; echo b >&2"));
    let logger = logger(
        &bed,
        "env > $D/env; echo \"$@\" > $D/args; exec 5>&-; cat <&3 > $D/out & cat <&4 > $D/err",
    );
    let address = format!("binary://{}?colour=blue", logger.display());
    start(&shim, &bundle, "", &address, &address);
    shim.task.wait("c1", "").unwrap();
    bed.end(&bundle, &shim);
    let read = |name: &str| std::fs::read_to_string(bed.path(name)).unwrap_or_default();
    eventually(SHORT, "the logger has all", || {
        read("out") == "a\n" && read("err") == "b\n"
    });
    assert_eq!(read("args"), "colour blue\n");
    assert!(read("env").contains("CONTAINER_ID=c1\n"), "{}", read("env"));
    assert!(read("env").contains(&format!("CONTAINER_NAMESPACE={}\n", bed.namespace())));
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn a_logger_is_waited_for_until_it_is_ready() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("echo a"));
    let logger = logger(
        &bed,
        "while ! [ -e $D/go ]; do sleep 0.02; done; echo x >&5; exec 5>&-; cat <&3 > $D/out",
    );
    let address = format!("binary://{}", logger.display());
    let request = bundle.create_with("", &address, &address);
    let create = shim.task.spawn(move |t| t.create(&request).map(drop));
    assert!(!holds(Duration::from_millis(300), || create.is_finished()));
    std::fs::write(bed.path("go"), "").unwrap();
    create.join().unwrap().unwrap();
    shim.task.start("c1", "").unwrap();
    shim.task.wait("c1", "").unwrap();
    bed.finish(&bundle, &shim);
    assert_eq!(std::fs::read_to_string(bed.path("out")).unwrap(), "a\n");
}

#[test]
fn a_logger_that_is_not_there_fails_the_create() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let address = format!("binary://{}", bed.path("no-logger").display());
    let error = shim
        .task
        .create(&bundle.create_with("", &address, &address))
        .unwrap_err();
    assert!(error.message().contains("no-logger"), "{error}");
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn a_terminal_carries_both_ways_and_is_resized() {
    let bed = Bed::new();
    let script = "read line; echo got $line; read line; stty size";
    let (bundle, shim) = bed.shim("c1", &Spec::sh(script).terminal());
    let mut input = InputFifo::new(&bed.fifo("in"));
    let out = OutputFifo::read(&bed.fifo("out"));
    start(&shim, &bundle, &input.path(), &out.path(), "");
    input.open();
    input.write("hello\n");
    out.wait_text(SHORT, "got hello\r\n");
    shim.task.resize("c1", "", 123, 45).unwrap();
    input.write("next\n");
    out.wait_text(SHORT, "45 123");
    assert_eq!(shim.task.wait("c1", "").unwrap().exit_status, 0);
    assert!(shim.task.state("c1", "").unwrap().terminal);
    out.wait_end(SHORT);
    bed.finish(&bundle, &shim);
}

#[test]
fn an_execs_terminal_carries_and_is_resized() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let mut input = InputFifo::new(&bed.fifo("in"));
    let out = OutputFifo::read(&bed.fifo("out"));
    let spec = Spec::sh("tty; read line; stty size; exit 3").terminal();
    let mut request = bundle.exec_spec("e1", &spec);
    request.stdin = input.path();
    request.stdout = out.path();
    shim.task.exec(&request).unwrap();
    shim.task.start("c1", "e1").unwrap();
    out.wait_text(SHORT, "/dev/pts/");
    shim.task.resize("c1", "e1", 99, 33).unwrap();
    input.open();
    input.write("\n");
    out.wait_text(SHORT, "33 99");
    assert_eq!(shim.task.wait("c1", "e1").unwrap().exit_status, 3);
    out.wait_end(SHORT);
    shim.task.delete("c1", "e1").unwrap();
    bed.finish(&bundle, &shim);
}

#[test]
fn the_last_words_on_a_terminal_arrive() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sh("seq 1 3000; echo last").terminal());
    let out = OutputFifo::read(&bed.fifo("out"));
    start(&shim, &bundle, "", &out.path(), "");
    shim.task.wait("c1", "").unwrap();
    out.wait_end(SHORT);
    let text = out.text();
    assert!(
        text.ends_with("3000\r\nlast\r\n"),
        "…{:?}",
        text.get(text.len().saturating_sub(40)..)
    );
    assert_eq!(text.lines().count(), 3001);
    bed.finish(&bundle, &shim);
}

#[test]
fn console_sockets_are_removed() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper().terminal());
    let out = OutputFifo::read(&bed.fifo("out"));
    start(&shim, &bundle, "", &out.path(), "");
    let left: Vec<_> = std::fs::read_dir(bed.path("run"))
        .unwrap()
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
    bed.finish(&bundle, &shim);
}

#[test]
fn io_belongs_to_the_ids_of_the_options() {
    known_difference!("crun", "crun gives the pipes to the process's own ids");
    let bed = Bed::new();
    let mut bundle = bed.bundle("c1", &Spec::sh("stat -L -c %u:%g /proc/self/fd/1"));
    bundle.options.io_uid = 1234;
    bundle.options.io_gid = 2345;
    let shim = bed.start(&bundle);
    let (out, err) = outputs(&bed);
    start(&shim, &bundle, "", &out.path(), &err.path());
    out.wait_end(SHORT);
    // runc gives the pipes to the process's own user in turn, but leaves their group.
    assert!(
        out.text().ends_with(":2345\n"),
        "{} {}",
        out.text(),
        err.text()
    );
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(out.path()).unwrap());
    assert_eq!(owner, 0, "the client's FIFO keeps its owner");
    bed.finish(&bundle, &shim);
}
