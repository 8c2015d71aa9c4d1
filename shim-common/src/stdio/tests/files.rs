//! Plain files: appended to, shared, and full disks survived.

use std::fs;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::*;

#[test]
fn one_file_for_both_streams_is_appended_to_through_one_descriptor() {
    on_one_thread(async {
        let client = Client::new();
        let path = client.path("log");
        fs::write(&path, "before\n").unwrap();
        let name = path.to_str().unwrap().to_owned();
        let request = Request {
            stdout: name.clone(),
            stderr: name.clone(),
            ..client.bare()
        };
        let mut io = opened(&request).await;
        let links = fs::read_dir("/proc/self/fd").unwrap();
        let open = links.filter(|link| {
            let link = link.as_ref().unwrap().path();
            fs::read_link(link).is_ok_and(|target| target == path)
        });
        assert_eq!(open.count(), 1);
        let told = start(&mut io);
        let (mut stdout, mut stderr) = (end(&mut io.child.stdout), end(&mut io.child.stderr));
        for round in 0..3 {
            // Each line in one write: writeln! makes several, between which the other goes.
            stdout
                .write_all(format!("out {round}\n").as_bytes())
                .unwrap();
            stderr
                .write_all(format!("err {round}\n").as_bytes())
                .unwrap();
            until("lines are written, then the helpers end", || {
                let text = fs::read_to_string(&path).unwrap();
                text.contains(&format!("out {round}")) && text.contains(&format!("err {round}"))
            })
            .await;
        }
        drop((stdout, stderr));
        drained(&io, &told).await;
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("before\n") && text.lines().count() == 7,
            "{text}"
        );
    });
}

#[test]
fn a_file_uri_makes_the_file_and_its_folders() {
    use std::os::unix::fs::PermissionsExt;
    on_one_thread(async {
        let client = Client::new();
        let path = client.path("a/b/log");
        let request = Request {
            stdout: format!("file://{}", path.display()),
            ..client.bare()
        };
        let mut io = opened(&request).await;
        let told = start(&mut io);
        let bytes = pattern(1_000_000);
        assert!(
            write_all(end(&mut io.child.stdout), bytes.clone())
                .done()
                .await
        );
        // Both streams go there, whatever stderr said.
        end(&mut io.child.stderr).write_all(b"").unwrap();
        drained(&io, &told).await;
        assert!(fs::read(&path).unwrap() == bytes);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o644);
        assert_eq!(mode(&client.path("a")), 0o755);
    });
}

#[test]
fn a_full_disk_holds_the_writer_and_loses_nothing() {
    keep_log();
    on_one_thread(async {
        let client = Client::new();
        let disk = client.path("disk");
        fs::create_dir(&disk).unwrap();
        mount(
            Some("tmpfs"),
            &disk,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=1m"),
        )
        .unwrap();
        let _mounted = Mounted(disk.clone());
        let filler = disk.join("filler");
        fs::write(&filler, vec![0; 900 << 10]).unwrap();
        let path = disk.join("log");
        let request = Request {
            stdout: format!("file://{}", path.display()),
            ..client.bare()
        };
        let mut io = opened(&request).await;
        let told = start(&mut io);
        drop(end(&mut io.child.stderr));
        let bytes = pattern(600 << 10);
        let writer = write_all(end(&mut io.child.stdout), bytes.clone());
        let name = path.display().to_string();
        until("the full disk is said", || {
            logged(&format!("ERROR {name}: No space"))
        })
        .await;
        assert!(writer.is_busy() && !io.relay.is_drained());
        fs::remove_file(filler).unwrap();
        assert!(writer.done().await);
        drained(&io, &told).await;
        assert!(fs::read(&path).unwrap() == bytes, "bytes differ");
        assert!(logged(&format!("{name}: writing again")));
    });
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

#[test]
fn a_shut_relay_does_not_wait_for_a_full_disk() {
    on_one_thread(async {
        let client = Client::new();
        let request = Request {
            // Every write to it fails with ENOSPC.
            stdout: "/dev/full".to_owned(),
            ..client.bare()
        };
        let mut io = opened(&request).await;
        start(&mut io);
        let writer = write_all(end(&mut io.child.stdout), pattern(1_000_000));
        until("the writer is held", || {
            writer.is_busy() && fs::read_dir("/proc/self/fd").is_ok()
        })
        .await;
        io.relay.shut();
        assert!(!writer.done().await, "its writer gets EPIPE");
    });
}
