//! A thousand spawns, successful and failed, leave no descriptor, no mapping and no zombie. One
//! test alone in its process: it counts what the whole process has.

use sys::spawn::Spawn;

/// Open descriptors and lines of the memory map; the reading itself costs one in both counts.
fn held() -> std::io::Result<(usize, usize)> {
    let descriptors = std::fs::read_dir("/proc/self/fd")?.count();
    Ok((
        descriptors,
        std::fs::read_to_string("/proc/self/maps")?.lines().count(),
    ))
}

fn children() -> String {
    std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default()
}

#[test]
fn spawns_leave_nothing_behind() {
    let round = || {
        let child = Spawn::new("/bin/true").spawn().unwrap();
        assert_eq!(sys::wait::wait_pid(child.pid).unwrap().status, 0);
        let error = Spawn::new("/nonexistent").spawn().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    };
    round();
    let before = held().unwrap();
    for _ in 0..1000 {
        round();
    }
    assert_eq!(held().unwrap(), before);
    assert_eq!(children(), "");
    assert_eq!(sys::wait::reap().unwrap(), None);
}
