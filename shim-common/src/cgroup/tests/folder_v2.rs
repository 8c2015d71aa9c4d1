//! cgroup v2 from folders: `v2/fixtures/<kernel>/` holds the files of one cgroup with the names,
//! keys and order that this kernel gives them (the figures are made up, so that no two are alike
//! where it matters), and `expected.txt` the message that must come out, in protobuf's text form.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use containerd_shim_protos::cgroups_v2::metrics::Metrics;
use protobuf::Message as _;

use super::super::{Cgroup, FreezeState, Hierarchy, Version, v2};

const KERNELS: [&str; 3] = ["linux-5.10", "linux-6.1", "linux-6.12"];

fn fixture(kernel: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/cgroup/v2/fixtures")
        .join(kernel)
}

fn cgroup(dir: &Path) -> Cgroup {
    let hierarchy = Hierarchy {
        controllers: "".into(),
        dir: dir.into(),
        is_root: false,
        shared: false,
    };
    Cgroup::new(Version::V2, vec![hierarchy])
}

fn metrics(cgroup: &Cgroup) -> Metrics {
    let any = cgroup.stats().unwrap();
    assert_eq!(any.type_url, v2::TYPE_URL);
    Metrics::parse_from_bytes(&any.value).unwrap()
}

/// A copy that a test may change.
fn copy(kernel: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixture(kernel)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

#[test]
fn every_field_as_three_kernels_write_it() {
    for kernel in KERNELS {
        let dir = fixture(kernel);
        let text = fs::read_to_string(dir.join("expected.txt")).unwrap();
        let expected: Metrics = protobuf::text_format::parse_from_str(&text).unwrap();
        let found = metrics(&cgroup(&dir));
        assert_eq!(found, expected, "{kernel}");
        // Nothing may hide in fields that a client's decoder does not know.
        assert!(
            found
                .special_fields
                .unknown_fields()
                .iter()
                .next()
                .is_none()
        );
    }
}

#[test]
fn controllers_that_are_not_enabled_leave_zeros() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
    fs::write(dir.path().join("cpu.stat"), "usage_usec 9\n").unwrap();
    let found = metrics(&cgroup(dir.path()));
    assert_eq!(found.cpu.usage_usec, 9);
    assert!(found.cpu.psi.is_none());
    assert_eq!(found.memory.usage_limit, 0);
    assert!(found.pids.is_some() && found.io.is_some() && found.rdma.is_some());
    assert!(found.memory_events.is_none());
    assert!(found.hugetlb.is_empty());
    assert_eq!(cgroup(dir.path()).oom_kills().unwrap(), 0);
}

#[test]
fn a_removed_cgroup_is_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let gone = cgroup(&dir.path().join("gone"));
    assert_eq!(gone.stats().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(gone.oom_kills().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(gone.populated().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(gone.processes().unwrap_err().kind(), ErrorKind::NotFound);
    gone.kill_all().unwrap();
    gone.remove().unwrap();
}

#[test]
fn a_file_that_makes_no_sense_is_named() {
    let dir = copy("linux-6.12");
    fs::write(dir.path().join("memory.current"), "lots\n").unwrap();
    let error = cgroup(dir.path()).stats().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(error.to_string().contains("memory.current"), "{error}");
}

#[test]
fn kills_population_and_freezing() {
    let expected = [
        (4, true, FreezeState::Thawed),
        (2, true, FreezeState::Frozen),
        (1, false, FreezeState::Freezing),
    ];
    for (kernel, (kills, populated, state)) in KERNELS.into_iter().zip(expected) {
        let cgroup = cgroup(&fixture(kernel));
        assert_eq!(cgroup.oom_kills().unwrap(), kills, "{kernel}");
        assert_eq!(cgroup.populated().unwrap(), populated, "{kernel}");
        assert_eq!(cgroup.freeze_state().unwrap(), state, "{kernel}");
    }
}
