//! A shim short of memory: a small memory cgroup, a small address space. Calls fail with a clear
//! error, the shim lives, and with room again everything works as before.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]
#![expect(clippy::disallowed_methods, reason = "the tests run prlimit")]

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use wherry_integration::prelude::*;

/// Fails unless a create that was refused left nothing, and one after it works.
fn whole_again(bed: &Bed, bundle: &Bundle, shim: &Shim) {
    assert!(shim.alive());
    // What the kernel has killed for memory may need a moment to be gone.
    eventually(SHORT, "no process of the container", || {
        host::cgroup_members(&bundle.cgroup).is_empty()
    });
    assert_eq!(bed.runtime_states(), Vec::<PathBuf>::new());
    assert_eq!(
        shim.task.state("c1", "").unwrap_err().code(),
        Some(Code::NOT_FOUND)
    );
}

/// Sets the address space that a process may have, in bytes; nothing for no limit.
fn address_space(pid: i32, bytes: Option<u64>) {
    let value = bytes.map_or_else(|| "unlimited".to_owned(), |b| b.to_string());
    let output = Command::new("prlimit")
        .args([&format!("--pid={pid}"), &format!("--as={value}:unlimited")])
        .output()
        .expect("prlimit is installed");
    assert!(output.status.success(), "{output:?}");
}

/// The address space of a process in bytes.
fn mapped(pid: i32) -> u64 {
    let pages = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    pages * 4096
}

#[test]
fn calls_without_address_space_fail_clearly_and_leave_nothing() {
    known_difference!(
        "go",
        "Go's runtime ends the process when it cannot map memory"
    );
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    shim.task.create(&bundle.create()).unwrap();
    shim.task.delete("c1", "").unwrap();
    let before = Leaks::of_shim(shim.pid);
    let mut refused = 0;
    for more in [1 << 20, 4 << 20, 16 << 20, 64 << 20] {
        address_space(shim.pid, Some(mapped(shim.pid) + more));
        let created = shim.task.patience(LONG).create(&bundle.create());
        address_space(shim.pid, None);
        match created {
            // How much is enough is for the runtime to say: crun is a tenth of runc.
            Ok(_) => drop(shim.task.delete("c1", "").unwrap()),
            Err(error) => {
                refused += 1;
                assert!(error.code().is_some(), "{more}: {error}");
                assert!(!error.message().is_empty(), "{more}");
            }
        }
        whole_again(&bed, &bundle, &shim);
        let mut left = Vec::new();
        let same = holds(SHORT, || {
            left = Leaks::of_shim(shim.pid).compare(&before);
            left.is_empty()
        });
        assert!(same, "{more}: {left:?}");
    }
    assert!(refused > 0, "the limit was never met");
    shim.task.create(&bundle.create()).unwrap();
    shim.task.start("c1", "").unwrap();
    bed.finish(&bundle, &shim);
}

/// The limit and the usage of a cgroup's memory, on either version of cgroups.
fn memory_files(cgroup: &str) -> (PathBuf, PathBuf) {
    let names = [
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ("memory.max", "memory.current"),
    ];
    host::cgroups(cgroup)
        .iter()
        .flat_map(|dir| names.map(|(limit, usage)| (dir.join(limit), dir.join(usage))))
        .find(|(limit, _)| limit.exists())
        .expect("the memory controller")
}

/// What the kernel kills for want of memory is its choice: mostly the runtime, which is larger, and
/// then the call says so; or the shim, and then `delete` removes what was there.
#[test]
fn a_shim_in_a_small_memory_cgroup_answers_or_dies_and_leaves_nothing() {
    known_difference!("go", "a Create that fails leaves what runc has made");
    let (mut refused, mut killed) = (0, 0);
    for more in [256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20] {
        let bed = Bed::new();
        let mut bundle = bed.bundle("c1", &Spec::sleeper());
        let cgroup = bed.cgroup("shim");
        host::make_cgroup(&cgroup);
        bundle.options.shim_cgroup.clone_from(&cgroup);
        let shim = bed.start(&bundle);
        let (limit, usage) = memory_files(&cgroup);
        let used: u64 = fs::read_to_string(&usage).unwrap().trim().parse().unwrap();
        fs::write(&limit, (used + more).to_string()).unwrap();
        let created = shim.task.patience(LONG).create(&bundle.create());
        // One that is gone cannot be told.
        let _ = fs::write(&limit, (1_u64 << 30).to_string());
        match created {
            Ok(_) => bed.end(&bundle, &shim),
            Err(CallError::Closed) => {
                killed += 1;
                shim.wait_gone();
            }
            Err(error) => {
                refused += 1;
                assert!(error.code().is_some(), "{more}: {error}");
                assert!(
                    error.message().starts_with("OCI runtime create failed"),
                    "{error}"
                );
                whole_again(&bed, &bundle, &shim);
                shim.task.create(&bundle.create()).unwrap();
                shim.task.start("c1", "").unwrap();
                bed.end(&bundle, &shim);
            }
        }
        bed.remove(&bundle);
        eventually(SHORT, "nobody in the shim's cgroup", || {
            host::cgroup_members(&cgroup).is_empty()
        });
        host::remove_empty_cgroup(&cgroup);
        bed.assert_clean();
    }
    assert!(refused + killed > 0, "the limit was never met");
}
