//! What operators and the kernel know a served shim by: name, flags, process group, OOM score and
//! cgroups.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::fs;

use wherry_integration::prelude::*;

#[test]
fn the_process_is_named_and_flagged_as_operators_grep_for_it() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    assert_eq!(host::comm(shim.pid), "containerd-shim");
    let cmdline = host::cmdline(shim.pid);
    assert!(cmdline[0].contains("containerd-shim-runc-v"), "{cmdline:?}");
    let after = |flag: &str| {
        let at = cmdline.iter().position(|a| a == flag);
        cmdline[at.unwrap_or_else(|| panic!("no {flag} in {cmdline:?}")) + 1].clone()
    };
    assert_eq!(after("-namespace"), bed.namespace());
    assert_eq!(after("-id"), "c1");
    assert_eq!(
        after("-address"),
        bed.path("containerd.sock").display().to_string()
    );
    bed.finish_empty(&bundle, &shim);
}

#[test]
fn the_shim_is_a_group_leader_and_holds_neither_output_of_start() {
    let bed = Bed::new();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let stat = fs::read_to_string(format!("/proc/{}/stat", shim.pid)).unwrap();
    let fields: Vec<_> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    assert_eq!(fields[2], shim.pid.to_string(), "process group");
    let descriptors = host::descriptors(shim.pid);
    let target = |n: i32| {
        descriptors
            .iter()
            .find(|(fd, _)| *fd == n)
            .map(|(_, t)| t.clone())
    };
    assert_eq!(target(0).as_deref(), Some("/dev/null"));
    assert_eq!(target(1).as_deref(), Some("/dev/null"));
    let log = bundle.path.join("log").display().to_string();
    assert_eq!(
        target(2).as_deref(),
        Some(log.as_str()),
        "standard error is the log"
    );
    let cwd = fs::read_link(format!("/proc/{}/cwd", shim.pid)).unwrap();
    assert_eq!(cwd, bundle.path);
    bed.finish_empty(&bundle, &shim);
}

#[test]
fn the_oom_score_is_the_daemons_plus_one() {
    let bed = Bed::new();
    let own: i32 = fs::read_to_string("/proc/self/oom_score_adj")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let (bundle, shim) = bed.shim("c1", &Spec::sleeper());
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", shim.pid)).unwrap();
    assert_eq!(score.trim(), (own + 1).min(1000).to_string());
    bed.finish_empty(&bundle, &shim);
}

#[test]
fn a_shim_cgroup_is_joined_in_every_hierarchy() {
    let bed = Bed::new();
    let mut bundle = bed.bundle("c1", &Spec::sleeper());
    bundle.options.shim_cgroup = bed.cgroup("shims");
    host::make_cgroup(&bed.cgroup("shims"));
    let shim = bed.start(&bundle);
    let lines = fs::read_to_string(format!("/proc/{}/cgroup", shim.pid)).unwrap();
    if target::cgroup_v2() {
        assert!(
            lines.contains(&format!("0::{}", bed.cgroup("shims"))),
            "{lines}"
        );
    } else {
        for controller in ["memory", "pids", "cpu"] {
            let line = lines
                .lines()
                .find(|l| l.split(':').nth(1) == Some(controller));
            assert!(
                line.is_some_and(|l| l.ends_with(&bed.cgroup("shims"))),
                "{lines}"
            );
        }
    }
    bed.shut(&bundle, &shim);
    eventually(SHORT, "the shims' cgroup is empty", || {
        host::remove_empty_cgroup(&bed.cgroup("shims"));
        host::cgroups(&bed.cgroup("shims")).is_empty()
    });
    bed.remove(&bundle);
    bed.assert_clean();
}

#[test]
fn the_shims_cgroup_lists_it_in_every_subsystem() {
    let bed = Bed::new();
    let mut bundle = bed.bundle("c1", &Spec::sleeper());
    bundle.options.shim_cgroup = bed.cgroup("shims");
    host::make_cgroup(&bed.cgroup("shims"));
    let shim = bed.start(&bundle);
    let mut absent = Vec::new();
    for hierarchy in host::cgroup_hierarchies() {
        let own = hierarchy.join(bed.cgroup("shims").trim_start_matches('/'));
        let procs = fs::read_to_string(own.join("cgroup.procs")).unwrap_or_default();
        if !procs.lines().any(|l| l == shim.pid.to_string()) {
            absent.push(hierarchy);
        }
    }
    if !absent.is_empty() && !target::cgroup_v2() {
        // The named hierarchy is systemd's and the unified one of a hybrid machine nobody's.
        absent.retain(|h| !h.ends_with("systemd") && !h.ends_with("unified"));
    }
    assert!(absent.is_empty(), "{absent:?}");
    bed.shut(&bundle, &shim);
    eventually(SHORT, "the shims' cgroup is empty", || {
        host::remove_empty_cgroup(&bed.cgroup("shims"));
        host::cgroups(&bed.cgroup("shims")).is_empty()
    });
    bed.remove(&bundle);
    bed.assert_clean();
}
