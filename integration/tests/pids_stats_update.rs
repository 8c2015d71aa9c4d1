//! What the shim tells of a container's processes and resources, and how it changes them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};

use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::{cgroups, cgroups_v2};
use protobuf::Message as _;
use serde_json::json;
use wherry_integration::prelude::*;

fn cgroup_file(bundle: &Bundle, controller: &str, file: &str) -> PathBuf {
    let below = bundle.cgroup.trim_start_matches('/');
    if target::cgroup_v2() {
        Path::new("/sys/fs/cgroup").join(below).join(file)
    } else {
        Path::new("/sys/fs/cgroup")
            .join(controller)
            .join(below)
            .join(file)
    }
}

#[test]
fn pids_lists_every_process_and_names_the_execs() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let init = shim.task.state("c1", "").unwrap().pid;
    shim.task
        .exec(&bundle.exec("e1", &["sh", "-c", "sleep 999; true"]))
        .unwrap();
    let exec = shim.task.start("c1", "e1").unwrap().pid;
    eventually(SHORT, "three processes", || {
        shim.task.pids("c1").unwrap().processes.len() == 3
    });
    for process in shim.task.pids("c1").unwrap().processes {
        if process.pid == exec {
            assert!(
                process
                    .info
                    .type_url
                    .ends_with("containerd.runc.v1.ProcessDetails")
            );
            let details = ProcessDetails::parse_from_bytes(&process.info.value).unwrap();
            assert_eq!(details.exec_id, "e1");
        } else {
            assert!(process.info.is_none(), "{process:?}");
        }
    }
    let pids: Vec<_> = shim
        .task
        .pids("c1")
        .unwrap()
        .processes
        .iter()
        .map(|p| p.pid)
        .collect();
    assert!(pids.contains(&init));
    bed.finish(&bundle, &shim);
}

#[test]
fn pids_of_a_created_container_is_its_init() {
    let bed = Bed::new();
    let (bundle, shim) = bed.created("c1", &Spec::sleeper());
    let init = shim.task.state("c1", "").unwrap().pid;
    let pids: Vec<_> = shim
        .task
        .pids("c1")
        .unwrap()
        .processes
        .iter()
        .map(|p| p.pid)
        .collect();
    assert_eq!(pids, [init]);
    bed.finish(&bundle, &shim);
}

#[test]
fn pids_of_a_stopped_container_is_that_of_its_init_until_the_delete() {
    // A daemon that restarts takes a shim whose Pids fails (#13784) or is empty for leaked, and
    // deletes its container: nobody would learn how it ended.
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sh("exit 0"));
    shim.task.wait("c1", "").unwrap();
    known_difference!("go", "empty, or runc ps of a stopped container fails");
    let init = shim.task.state("c1", "").unwrap().pid;
    let pids: Vec<u32> = shim
        .task
        .pids("c1")
        .unwrap()
        .processes
        .iter()
        .map(|p| p.pid)
        .collect();
    assert_eq!(pids, [init]);
    bed.finish(&bundle, &shim);
}

#[test]
fn stats_are_the_metrics_of_the_machines_cgroup_version() {
    let bed = Bed::new();
    let script = "n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done; sleep 1000";
    let (bundle, shim) = bed.running("c1", &Spec::sh(script).memory(64 << 20));
    if target::cgroup_v2() {
        let stats = shim.task.stats("c1").unwrap().stats;
        assert!(
            stats.type_url.ends_with("io.containerd.cgroups.v2.Metrics"),
            "{}",
            stats.type_url
        );
        eventually(SHORT, "processor time", || {
            let stats = shim.task.stats("c1").unwrap().stats;
            let m = cgroups_v2::metrics::Metrics::parse_from_bytes(&stats.value).unwrap();
            m.cpu.usage_usec > 0 && m.memory.usage > 0 && m.pids.current >= 1
        });
        let m = cgroups_v2::metrics::Metrics::parse_from_bytes(&stats.value).unwrap();
        assert_eq!(m.memory.usage_limit, 64 << 20);
    } else {
        let stats = shim.task.stats("c1").unwrap().stats;
        assert!(
            stats.type_url.ends_with("io.containerd.cgroups.v1.Metrics"),
            "{}",
            stats.type_url
        );
        eventually(SHORT, "processor time", || {
            let stats = shim.task.stats("c1").unwrap().stats;
            let m = cgroups::metrics::Metrics::parse_from_bytes(&stats.value).unwrap();
            m.cpu.usage.total > 0 && m.memory.usage.usage > 0 && m.pids.current >= 1
        });
        let m = cgroups::metrics::Metrics::parse_from_bytes(&stats.value).unwrap();
        assert_eq!(m.memory.usage.limit, 64 << 20);
        assert!(!m.cpu.usage.per_cpu.is_empty());
    }
    bed.finish(&bundle, &shim);
}

#[test]
fn stats_of_a_created_container_work_already() {
    let bed = Bed::new();
    let (bundle, shim) = bed.created("c1", &Spec::sleeper());
    assert!(!shim.task.stats("c1").unwrap().stats.value.is_empty());
    bed.finish(&bundle, &shim);
}

#[test]
fn update_changes_the_cgroup_of_a_running_container() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper().memory(64 << 20));
    let resources = json!({"memory": {"limit": 32 << 20}, "pids": {"limit": 77}});
    shim.task.update("c1", &resources).unwrap();
    let read = |controller, v1, v2| {
        let file = if target::cgroup_v2() { v2 } else { v1 };
        std::fs::read_to_string(cgroup_file(&bundle, controller, file))
            .unwrap()
            .trim()
            .to_owned()
    };
    let memory = read("memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(memory, (32 << 20).to_string());
    assert_eq!(read("pids", "pids.max", "pids.max"), "77");
    bed.finish(&bundle, &shim);
}

#[test]
fn an_update_of_nonsense_is_an_error_and_harms_nothing() {
    known_difference!("crun", "it takes what it does not understand for nothing");
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let error = shim
        .task
        .update("c1", &json!({"memory": "plenty"}))
        .unwrap_err();
    assert!(error.code().is_some(), "{error}");
    assert_eq!(shim.task.state("c1", "").unwrap().status(), Status::RUNNING);
    bed.finish(&bundle, &shim);
}

#[test]
fn pause_freezes_and_resume_thaws() {
    let bed = Bed::new();
    let (bundle, shim) = bed.running("c1", &Spec::sleeper());
    let frozen = || {
        let (file, word) = if target::cgroup_v2() {
            ("cgroup.freeze", "1")
        } else {
            ("freezer.state", "FROZEN")
        };
        std::fs::read_to_string(cgroup_file(&bundle, "freezer", file))
            .unwrap()
            .trim()
            == word
    };
    shim.task.pause("c1").unwrap();
    assert!(frozen());
    shim.task.resume("c1").unwrap();
    assert!(!frozen());
    bed.sink().wait_brief("paused c1");
    bed.sink().wait_brief("resumed c1");
    bed.finish(&bundle, &shim);
}
