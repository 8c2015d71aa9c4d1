//! Runtimes that hang in one call: the others are answered meanwhile, the container can be killed and
//! deleted as ever, its exit is told once, and the hung runtime does not outlive the container.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use wherry_integration::prelude::*;

const EXEC_REAL: &str = "exec $REAL \"$@\"";

/// A runtime that never comes back from one subcommand, once it is told to hang.
fn hung(command: &str) -> String {
    format!(
        "[ $cmd = {command} ] && [ -e $DIR/hang ] && {{ touch $DIR/hung; exec sleep 1000; }}; {EXEC_REAL}"
    )
}

/// Kills a container in the midst of `call`, from which its runtime does not come back.
fn killed_in(
    command: &str,
    prepare: impl Fn(&Bundle, &Shim),
    call: impl FnOnce(&TaskClient) -> Result<(), CallError> + Send + 'static,
) {
    known_difference!(
        "go",
        "a hung runtime holds the lock that every other call needs"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.wrapped("c1", &Spec::sleeper(), &hung(command));
    shim.task.create(&bundle.create()).unwrap();
    prepare(&bundle, &shim);
    bed.flag("hang");
    let pending = shim.task.another().patience(LONG).spawn(call);
    eventually(SHORT, "the runtime hangs", || bed.path("hung").exists());
    let quick = shim.task.patience(Duration::from_secs(2));
    quick.state("c1", "").unwrap();
    quick.connect_task("c1").unwrap();
    quick.stats("c1").unwrap();
    shim.task.patience(SHORT).kill("c1", "", 9, false).unwrap();
    let ended = shim.task.patience(LONG).wait("c1", "").unwrap();
    assert_eq!(ended.exit_status, 137);
    let result = pending.join().unwrap();
    assert!(
        matches!(&result, Err(error) if error.code().is_some()),
        "an answer that says so: {result:?}"
    );
    bed.finish(&bundle, &shim);
    let told = bed.sink().briefs();
    let mut wanted = vec!["create c1", "exit c1 137", "delete c1 137"];
    if command != "start" {
        wanted.insert(1, "start c1");
    }
    if command == "resume" {
        wanted.insert(2, "paused c1");
    }
    assert_eq!(told, wanted);
}

fn start(_: &Bundle, shim: &Shim) {
    shim.task.start("c1", "").unwrap();
}

#[test]
fn a_container_is_killed_while_its_start_hangs() {
    killed_in("start", |_, _| (), |t| t.start("c1", "").map(drop));
}

#[test]
fn a_container_is_killed_while_its_pause_hangs() {
    killed_in("pause", start, |t| t.pause("c1").map(drop));
}

#[test]
fn a_container_is_killed_while_its_resume_hangs() {
    if !target::cgroup_v2() {
        known_difference!("crun", "crun does not thaw what it kills");
    }
    let pause = |bundle: &Bundle, shim: &Shim| {
        start(bundle, shim);
        shim.task.pause("c1").unwrap();
    };
    killed_in("resume", pause, |t| t.resume("c1").map(drop));
}

#[test]
fn a_container_is_killed_while_its_update_hangs() {
    let limits = serde_json::json!({"pids": {"limit": 55}});
    killed_in("update", start, move |t| t.update("c1", &limits).map(drop));
}

#[test]
fn a_container_is_killed_while_its_checkpoint_hangs() {
    killed_in("checkpoint", start, |t| {
        t.checkpoint("c1", std::path::Path::new("/proc/checkpoint"))
            .map(drop)
    });
}

/// The kill that goes by the runtime hangs; the one that ends the container does not need it, under
/// a runtime of which is known that its pid is the container's.
#[test]
fn a_container_ends_while_a_kill_of_all_hangs() {
    known_difference!(
        "go",
        "a hung runtime holds the lock that every other call needs"
    );
    let bed = Bed::new();
    let mut bundle = bed.bundle("c1", &Spec::sleeper());
    let name = format!("{}.hung", target::runtime());
    bundle.options.binary_name = bed.wrapper(&name, &hung("kill")).display().to_string();
    let shim = bed.start(&bundle);
    shim.task.create(&bundle.create()).unwrap();
    start(&bundle, &shim);
    bed.flag("hang");
    let pending = shim.task.another().patience(LONG);
    let pending = pending.spawn(|t| t.kill("c1", "", 15, true).map(drop));
    eventually(SHORT, "the runtime hangs", || bed.path("hung").exists());
    shim.task.patience(SHORT).state("c1", "").unwrap();
    shim.task.patience(SHORT).kill("c1", "", 9, false).unwrap();
    let ended = shim.task.patience(LONG).wait("c1", "").unwrap();
    assert_eq!(ended.exit_status, 137);
    // The deletion of the container is the end of whatever is still asked about it.
    std::fs::remove_file(bed.path("hang")).unwrap();
    shim.task.patience(LONG).delete("c1", "").unwrap();
    let result = pending.join().unwrap();
    assert!(
        matches!(&result, Err(error) if error.code().is_some()),
        "an answer that says so: {result:?}"
    );
    bed.shut(&bundle, &shim);
    bed.remove(&bundle);
    bed.assert_clean();
}
