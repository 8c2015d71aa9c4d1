//! What starting a shim costs the daemon.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

mod common;

use std::fs;

use common::{Bed, Shims};

/// Containers whose start is counted.
const COUNTED: u64 = 10;
/// The pages that the daemon may touch anew for one of them. By fork they are 150 to 300.
const MOST: u64 = 60;

/// A daemon that forks shares all its pages with the child until this executes the shim, and copies
/// each that it writes to meanwhile. One that starts shims by posix_spawn copies none (ADR 0016).
#[test]
fn starting_a_shim_copies_nothing_of_the_daemon() {
    let mut bed = Bed::new(Shims::Ours);
    faults_are_few(&bed);
    // The one that is installed is linked in another way.
    let installed = bed.shim("wherryd");
    assert!(installed.exists(), "no {}: make build", installed.display());
    bed.stop();
    bed.program = installed;
    bed.start();
    faults_are_few(&bed);
}

#[track_caller]
fn faults_are_few(bed: &Bed) {
    let run = |id: String| {
        let rootfs = bed.rootfs();
        let what = [
            "run",
            "--rm",
            "--rootfs",
            &rootfs,
            &id,
            "/bin/busybox",
            "true",
        ];
        bed.ctr(&what).ok();
    };
    // The first few bring the daemon to its size.
    for n in 0..5 {
        run(format!("warm-{n}"));
    }
    let before = faults(bed.pid());
    for n in 0..COUNTED {
        run(format!("counted-{n}"));
    }
    let each = (faults(bed.pid()) - before) / COUNTED;
    assert!(each <= MOST, "{}: {each} pages each", bed.program.display());
}

/// How often a process has touched a page that it had to be given, without reading it from disk.
#[track_caller]
fn faults(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name is in parentheses; the number is the tenth field, see proc(5).
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(7).unwrap().parse().unwrap()
}
