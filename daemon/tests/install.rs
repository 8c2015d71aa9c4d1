//! What `make install` puts where, from what `make build` has built. Needs `make`.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run programs and wait for them"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

const PROGRAMS: [&str; 4] = [
    "containerd-shim-runc-v1",
    "containerd-shim-runc-v2",
    "wherryd",
    "wherry",
];

#[test]
fn make_install_puts_every_program_and_the_unit_in_place_and_uninstall_takes_them_away() {
    let release = env::var("SHIM_DIR").unwrap_or_default();
    if !PROGRAMS
        .iter()
        .all(|name| Path::new(&release).join(name).exists())
    {
        println!("skipped: SHIM_DIR is not the folder of a whole build (make test names it)");
        return;
    }
    let stage = tempfile::tempdir().unwrap();
    let make = |goal: &str| {
        let done = Command::new("make")
            .arg(goal)
            .args(["PREFIX=/usr", &format!("RELEASE={release}")])
            .arg(format!("DESTDIR={}", stage.path().display()))
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    make("install");
    for name in PROGRAMS {
        let placed = stage.path().join("usr/bin").join(name);
        let built = fs::read(Path::new(&release).join(name)).unwrap();
        assert!(fs::read(&placed).unwrap() == built, "{name}");
        let mode = fs::metadata(&placed).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "{name}");
    }
    let unit = stage.path().join("usr/lib/systemd/system/wherryd.service");
    let text = fs::read_to_string(&unit).unwrap();
    assert!(text.contains("ExecStart=/usr/bin/wherryd\n"), "{text}");
    make("uninstall");
    let left = fs::read_dir(stage.path().join("usr/bin")).unwrap().count();
    assert_eq!(left, 0);
    assert!(!unit.exists());
}
