//! Our daemon and Debian's containerd side by side, driven by the same `ctr`: what it prints and
//! how it ends must be the same, and so must the trees that it mounts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test binary uses its part, and what cannot be set up ends a test"
)]

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use regex_lite::Regex;

use super::api::Reference;
use super::common::{Bed, PATIENT, Ran, Shims, run};
use super::tree::{Tree, describe, difference};

/// Both daemons, and a namespace that nobody else uses.
pub struct Pair {
    pub ours: Bed,
    pub theirs: Reference,
    pub namespace: String,
    /// When they began.
    since: u64,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Ours,
    Theirs,
}

/// Both, one after the other.
pub const SIDES: [Side; 2] = [Side::Ours, Side::Theirs];

impl Pair {
    pub fn new() -> Self {
        let ours = Bed::with_config(Shims::Ours, &format!("version = 2\n{PATIENT}"));
        let namespace = ours.namespace.clone();
        let theirs = Reference::new(PATIENT);
        Self {
            ours,
            theirs,
            namespace,
            since: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs(),
        }
    }

    /// The folder of one side.
    pub fn dir(&self, side: Side) -> &Path {
        match side {
            Side::Ours => self.ours.dir.path(),
            Side::Theirs => self.theirs.dir.path(),
        }
    }

    pub fn command(&self, side: Side, namespace: &str) -> Command {
        let mut command = Command::new("ctr");
        let address = match side {
            Side::Ours => self.ours.address(),
            Side::Theirs => self.theirs.address(),
        };
        command.arg("-a").arg(address).args(["-n", namespace]);
        command
    }

    /// Runs `ctr` against one side.
    #[track_caller]
    pub fn one(&self, side: Side, arguments: &[&str]) -> Ran {
        self.within(side, &self.namespace, arguments)
    }

    /// As [`Pair::one`], in another namespace.
    #[track_caller]
    pub fn within(&self, side: Side, namespace: &str, arguments: &[&str]) -> Ran {
        run(self.command(side, namespace).args(arguments))
    }

    /// Runs `ctr` against both, sees that both end well, and answers what it printed.
    #[track_caller]
    pub fn both(&self, arguments: &[&str]) -> [String; 2] {
        SIDES.map(|side| {
            let ran = self.one(side, arguments);
            assert_eq!(ran.code, Some(0), "{side:?} {arguments:?}: {ran:?}");
            ran.stdout
        })
    }

    /// Runs `ctr` against both, sees that it says the same but for what differs by nature (times,
    /// sizes of columns, the folders of the daemons), and answers it.
    #[track_caller]
    pub fn same(&self, arguments: &[&str]) -> Ran {
        let [ours, theirs] = SIDES.map(|side| {
            let ran = self.one(side, arguments);
            // How far it is, in time.
            let is_progress = ["pull", "push", "fetch"].contains(&arguments[1]);
            let stdout = if is_progress { "" } else { &ran.stdout };
            Ran {
                stdout: self.masked(side, stdout),
                stderr: self.masked(side, &ran.stderr),
                ..ran
            }
        });
        let told = |ran: &Ran| format!("{:?}\n{}\n{}", ran.code, ran.stdout, ran.stderr);
        assert_eq!(told(&ours), told(&theirs), "ours is left: {arguments:?}");
        ours
    }

    /// As [`Pair::same`], for a failure that each side has words of its own for.
    #[track_caller]
    pub fn both_fail(&self, arguments: &[&str]) -> [Ran; 2] {
        SIDES.map(|side| {
            let ran = self.one(side, arguments);
            assert_eq!(ran.code, Some(1), "{side:?} {arguments:?}: {ran:?}");
            ran
        })
    }

    fn masked(&self, side: Side, text: &str) -> String {
        let mut text = text.replace(self.dir(side).to_str().unwrap(), "DIR");
        for (pattern, mask) in [
            (
                r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[0-9.]*( ?(Z|UTC|[+-]\d\d:?\d\d))*",
                "TIME",
            ),
            (r"snapshots/\d+/", "snapshots/N/"),
            (r"extract-\d+-[-_0-9A-Za-z]{4} ", "extract-N "),
            (
                r"(About )?(an?|\d+) (second|minute)s?|Less than a second",
                "AGE",
            ),
            (r"\b[0-9.]+(ms|µs|s)\b", "SPAN"),
            (r"[ \t]+", " "),
            (r" ?\n", "\n"),
        ] {
            let pattern = Regex::new(pattern).unwrap();
            text = pattern.replace_all(&text, mask).into_owned();
        }
        // `ctr` prints labels in any order.
        let sorted = |word: &str| {
            let mut parts: Vec<&str> = word.split(',').collect();
            parts.sort_unstable();
            parts.join(",")
        };
        let words = text.split_inclusive([' ', '\n']).map(|word| {
            let end = word.trim_end_matches([' ', '\n']).len();
            sorted(&word[..end]) + &word[end..]
        });
        words.collect()
    }

    /// The tree of an image as `ctr images mount` shows it; what the root itself is like is under
    /// the name `.`. Times of folders are left out when they are of this test: that is when something was
    /// unpacked into a folder that the layer does not bring itself.
    #[track_caller]
    pub fn image_tree(&self, side: Side, namespace: &str, snapshotter: &str, image: &str) -> Tree {
        let place = self.dir(side).join("mnt");
        fs::create_dir_all(&place).unwrap();
        let at = place.to_str().unwrap();
        let ctr = |arguments: &[&str]| self.within(side, namespace, arguments).ok();
        ctr(&["images", "mount", "--snapshotter", snapshotter, image, at]);
        let mounted = Mounted(place.clone());
        let mut tree = describe(&place, false);
        let root = fs::metadata(&place).unwrap();
        let text = format!("{:o} {}:{}", root.mode(), root.uid(), root.gid());
        tree.insert(PathBuf::from("."), text);
        ctr(&[
            "images",
            "unmount",
            "--rm",
            "--snapshotter",
            snapshotter,
            at,
        ]);
        drop(mounted);
        for text in tree.values_mut().filter(|text| text.starts_with('4')) {
            let mut words: Vec<&str> = text.split(' ').collect();
            let seconds = words
                .get(2)
                .and_then(|time| time.split('.').next()?.parse().ok());
            if seconds.is_some_and(|seconds: u64| seconds >= self.since) {
                words[2] = "unpacked";
                *text = words.join(" ");
            }
        }
        tree
    }

    /// Sees that both have unpacked an image to the same tree, of at least `entries` entries, and
    /// answers it.
    #[track_caller]
    pub fn same_tree(
        &self,
        namespace: &str,
        snapshotter: &str,
        image: &str,
        entries: usize,
    ) -> Tree {
        let [ours, theirs] = SIDES.map(|side| self.image_tree(side, namespace, snapshotter, image));
        let differences = difference(&ours, &theirs);
        assert_eq!(
            differences,
            Vec::<String>::new(),
            "{image} in {snapshotter}"
        );
        assert!(ours.len() >= entries, "{image} in {snapshotter}: {ours:#?}");
        ours
    }
}

/// A mount that goes when it is dropped, if it is still there.
pub struct Mounted(pub PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let arguments: [OsString; 2] = ["-l".into(), self.0.clone().into()];
        run(Command::new("umount").args(arguments));
    }
}
