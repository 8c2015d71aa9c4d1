//! What the world has been told of a task's processes, kept in its bundle, so that a daemon that
//! comes back knows which exits nobody has heard of.
//!
//! A shim tells each exit and each OOM itself. Ours go on trying for as long as the daemon is
//! away; Go's give up after some 15 s, and then the daemon has to tell in their place, once. So
//! each bundle has hidden files of ours: a note of the first process's exit, one of the OOM kills
//! told of, and one for each exec from before its start until it is deleted. They live in the
//! state folder, which is as short-lived as the processes, and need not survive a power failure.

use std::fs;
use std::io;
use std::path::PathBuf;

use core_api::Timestamp;

use super::task::Exit;
use crate::bundle::Bundle;
use crate::ids;

/// The exit of the first process, once told.
const EXIT: &str = ".wherry-exit";
/// How many OOM kills the kernel had counted when the last event about them was told.
const OOM: &str = ".wherry-oom";
/// The folder of a file for each exec: empty until its exit is told.
const EXECS: &str = ".wherry-execs";

/// Who told an exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Teller {
    /// The shim, as it should be.
    Shim,
    /// The daemon in its place.
    Daemon,
}

/// An exit that has been told.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The exit.
    pub exit: Exit,
    /// Who did.
    pub by: Teller,
}

impl Told {
    fn to_text(&self) -> String {
        let Exit { pid, status, at } = &self.exit;
        let at = at.unwrap_or_default();
        let by = match self.by {
            Teller::Shim => "shim",
            Teller::Daemon => "daemon",
        };
        format!("{by} {pid} {status} {} {}\n", at.seconds, at.nanos)
    }

    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [by, pid, status, seconds, nanos] = words.as_slice() else {
            return None;
        };
        let by = match *by {
            "shim" => Teller::Shim,
            "daemon" => Teller::Daemon,
            _ => return None,
        };
        let at = Timestamp {
            seconds: seconds.parse().ok()?,
            nanos: nanos.parse().ok()?,
        };
        let exit = Exit {
            pid: pid.parse().ok()?,
            status: status.parse().ok()?,
            at: (at != Timestamp::default()).then_some(at),
        };
        Some(Self { exit, by })
    }

    /// Whether a shim that now tells an exit of `pid` says what the daemon has said for it.
    pub fn says(&self, pid: u32) -> bool {
        self.by == Teller::Daemon && [0, pid].contains(&self.exit.pid)
    }
}

/// The notes of one task.
#[derive(Debug, Clone, Copy)]
pub struct Ledger<'a>(pub &'a Bundle);

impl Ledger<'_> {
    /// Begins the notes of a task that is new: nothing has been told of it.
    pub fn begin(self) {
        self.set_oom_kills(0);
    }

    /// Notes that an exec is about to start. One of the same id before it is forgotten.
    pub fn begin_exec(self, exec: &str) {
        if self.0.path.is_dir() {
            self.kept(fs::create_dir_all(self.0.path.join(EXECS)));
        }
        if let Some(path) = self.file(exec) {
            self.kept(fs::write(path, ""));
        }
    }

    /// Forgets an exec that was deleted.
    pub fn end_exec(self, exec: &str) {
        if let Some(path) = self.file(exec) {
            let _ = fs::remove_file(path);
        }
    }

    /// The execs that have been started and not deleted, and whether their exit was told.
    pub fn execs(self) -> Vec<(String, Option<Told>)> {
        let Ok(entries) = fs::read_dir(self.0.path.join(EXECS)) else {
            return Vec::new();
        };
        let mut found: Vec<_> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .map(|exec| {
                let told = self.told(&exec);
                (exec, told)
            })
            .collect();
        found.sort_by(|one, other| one.0.cmp(&other.0));
        found
    }

    /// The exit of an exec, or of the first process when `exec` is empty, if it has been told.
    pub fn told(self, exec: &str) -> Option<Told> {
        Told::parse(&fs::read_to_string(self.file(exec)?).ok()?)
    }

    /// Notes that an exit has been told. An exec that is not in the ledger any more was deleted,
    /// and is not taken up again.
    pub fn tell(self, exec: &str, told: &Told) {
        let Some(path) = self.file(exec) else { return };
        if exec.is_empty() || path.exists() {
            self.kept(fs::write(path, told.to_text()));
        }
    }

    /// How many OOM kills have been told of; `None` where another daemon laid the bundle.
    pub fn oom_kills(self) -> Option<u64> {
        let text = fs::read_to_string(self.0.path.join(OOM)).ok()?;
        text.trim().parse().ok()
    }

    /// Notes how many OOM kills have been told of.
    pub fn set_oom_kills(self, count: u64) {
        self.kept(fs::write(self.0.path.join(OOM), format!("{count}\n")));
    }

    /// Where the note of a process is; names that no exec can have come from broken shims.
    fn file(self, exec: &str) -> Option<PathBuf> {
        if exec.is_empty() {
            return Some(self.0.path.join(EXIT));
        }
        ids::check(exec).ok()?;
        Some(self.0.path.join(EXECS).join(exec))
    }

    /// A note that cannot be made costs an exit told twice, at worst.
    fn kept(self, done: io::Result<()>) {
        if let Err(error) = done {
            log::debug!("notes in {}: {error}", self.0.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(pid: u32) -> Exit {
        Exit {
            pid,
            status: 137,
            at: Some(Timestamp {
                seconds: 5,
                nanos: 7,
            }),
        }
    }

    #[test]
    fn notes_are_kept_in_the_bundle_until_an_exec_is_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle::create(&dir.path().join("r"), dir.path(), "ns", "c", b"{}").unwrap();
        let ledger = Ledger(&bundle);
        assert_eq!(ledger.oom_kills(), None);
        ledger.begin();
        assert_eq!(ledger.oom_kills(), Some(0));
        assert_eq!((ledger.told(""), ledger.execs()), (None, vec![]));

        let told = |pid, by| Told {
            exit: exit(pid),
            by,
        };
        ledger.begin_exec("e1");
        ledger.begin_exec("e2");
        ledger.begin_exec("../e3");
        ledger.tell("e1", &told(4, Teller::Shim));
        ledger.tell("never-begun", &told(4, Teller::Shim));
        ledger.tell("", &told(3, Teller::Daemon));
        let e1 = ("e1".to_owned(), Some(told(4, Teller::Shim)));
        assert_eq!(ledger.execs(), [e1, ("e2".to_owned(), None)]);
        assert_eq!(ledger.told(""), Some(told(3, Teller::Daemon)));

        ledger.begin_exec("e1");
        assert_eq!(ledger.told("e1"), None, "a new one of the same id");
        ledger.end_exec("e1");
        ledger.end_exec("e2");
        assert_eq!(ledger.execs(), []);
    }

    #[test]
    fn a_note_that_makes_no_sense_is_none() {
        for text in ["", "shim", "god 1 2 3 4", "shim 1 2 3 x", "shim 1 2 3 4 5"] {
            assert_eq!(Told::parse(text), None, "{text:?}");
        }
        let unknown = Told {
            exit: Exit::default(),
            by: Teller::Daemon,
        };
        assert_eq!(Told::parse(&unknown.to_text()), Some(unknown.clone()));
        assert!(unknown.says(7), "it did not know the pid");
    }

    #[test]
    fn only_what_the_daemon_told_is_swallowed() {
        let told = |by| Told { exit: exit(3), by };
        assert!(told(Teller::Daemon).says(3));
        assert!(!told(Teller::Daemon).says(4), "another process");
        // An answer that the shim did not get: it tells again, and so do we.
        assert!(!told(Teller::Shim).says(3));
    }
}
