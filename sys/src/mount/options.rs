//! Reads mount options as containerd and mount(8) write them: what is a flag of mount(2), what
//! changes the propagation, what asks for a loop device or an id mapping, and what is left for
//! the file system. Pure: no system call is made here.

use std::io;

use nix::mount::MsFlags;

/// One range of an id mapping: `count` ids from `inside` on (in the container, on disk) become
/// those from `outside` on (on the host).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct IdRange {
    pub(super) inside: u32,
    pub(super) outside: u32,
    pub(super) count: u32,
}

/// Both id mappings of a mount; containerd always passes the two together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct IdMapping {
    pub(super) uids: Vec<IdRange>,
    pub(super) gids: Vec<IdRange>,
}

/// The options of one mount, sorted by who acts on them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Options {
    /// Flags of mount(2), propagation excluded.
    pub(super) flags: MsFlags,
    /// Propagation changes in order, each with `MS_REC` where recursive: mount(2) wants a call of
    /// its own for each.
    pub(super) propagation: Vec<MsFlags>,
    /// The rest, in order, for the file system.
    pub(super) data: Vec<String>,
    /// `loop`: the source is a file to be put behind a loop device.
    pub(super) loop_device: bool,
    /// `direct-io` next to `loop`: the device bypasses the page cache of the file.
    pub(super) direct_io: bool,
    /// `uidmap=` and `gidmap=`.
    pub(super) id_mapping: Option<IdMapping>,
}

/// What a word of the option list does to the flags.
enum Word {
    Set(MsFlags),
    Clear(MsFlags),
    Propagate(MsFlags),
}

fn word(option: &str) -> Option<Word> {
    use Word::{Clear, Propagate, Set};
    let rec = MsFlags::MS_REC;
    Some(match option {
        "defaults" => Set(MsFlags::empty()),
        "ro" => Set(MsFlags::MS_RDONLY),
        "rw" => Clear(MsFlags::MS_RDONLY),
        "nosuid" => Set(MsFlags::MS_NOSUID),
        "suid" => Clear(MsFlags::MS_NOSUID),
        "nodev" => Set(MsFlags::MS_NODEV),
        "dev" => Clear(MsFlags::MS_NODEV),
        "noexec" => Set(MsFlags::MS_NOEXEC),
        "exec" => Clear(MsFlags::MS_NOEXEC),
        "sync" => Set(MsFlags::MS_SYNCHRONOUS),
        "async" => Clear(MsFlags::MS_SYNCHRONOUS),
        "dirsync" => Set(MsFlags::MS_DIRSYNC),
        "remount" => Set(MsFlags::MS_REMOUNT),
        "mand" => Set(MsFlags::MS_MANDLOCK),
        "nomand" => Clear(MsFlags::MS_MANDLOCK),
        "noatime" => Set(MsFlags::MS_NOATIME),
        "atime" => Clear(MsFlags::MS_NOATIME),
        "nodiratime" => Set(MsFlags::MS_NODIRATIME),
        "diratime" => Clear(MsFlags::MS_NODIRATIME),
        "relatime" => Set(MsFlags::MS_RELATIME),
        "norelatime" => Clear(MsFlags::MS_RELATIME),
        "strictatime" => Set(MsFlags::MS_STRICTATIME),
        "nostrictatime" => Clear(MsFlags::MS_STRICTATIME),
        "bind" => Set(MsFlags::MS_BIND),
        "rbind" => Set(MsFlags::MS_BIND.union(rec)),
        "private" => Propagate(MsFlags::MS_PRIVATE),
        "rprivate" => Propagate(MsFlags::MS_PRIVATE.union(rec)),
        "shared" => Propagate(MsFlags::MS_SHARED),
        "rshared" => Propagate(MsFlags::MS_SHARED.union(rec)),
        "slave" => Propagate(MsFlags::MS_SLAVE),
        "rslave" => Propagate(MsFlags::MS_SLAVE.union(rec)),
        "unbindable" => Propagate(MsFlags::MS_UNBINDABLE),
        "runbindable" => Propagate(MsFlags::MS_UNBINDABLE.union(rec)),
        _ => return None,
    })
}

impl Options {
    /// Sorts `options`. A later word overrides an earlier one, as in mount(8).
    ///
    /// # Errors
    ///
    /// `InvalidInput` for an id mapping that is not `inside:outside:count[,...]` in decimal, or
    /// for only one of `uidmap=` and `gidmap=`: mounting without the mapping that was asked for
    /// would show the container files of the wrong owner.
    pub(super) fn parse(options: &[String]) -> io::Result<Self> {
        let mut parsed = Self {
            flags: MsFlags::empty(),
            propagation: Vec::new(),
            data: Vec::new(),
            loop_device: false,
            direct_io: false,
            id_mapping: None,
        };
        let (mut uids, mut gids) = (None, None);
        for option in options {
            match word(option) {
                Some(Word::Set(flags)) => parsed.flags.insert(flags),
                Some(Word::Clear(flags)) => parsed.flags.remove(flags),
                Some(Word::Propagate(flags)) => parsed.propagation.push(flags),
                None => {
                    if option == "loop" {
                        parsed.loop_device = true;
                    } else if let Some(ranges) = option.strip_prefix("uidmap=") {
                        uids = Some(parse_ranges(ranges)?);
                    } else if let Some(ranges) = option.strip_prefix("gidmap=") {
                        gids = Some(parse_ranges(ranges)?);
                    } else if option.is_empty() || option.starts_with("X-containerd.") {
                        // Notes of containerd 2.x to its own mount manager (mkdir.path, mkfs.*,
                        // dmverity): no file system knows them.
                    } else {
                        parsed.data.push(option.clone());
                    }
                }
            }
        }
        if parsed.loop_device {
            let before = parsed.data.len();
            parsed.data.retain(|option| option != "direct-io");
            parsed.direct_io = parsed.data.len() != before;
        }
        parsed.id_mapping = match (uids, gids) {
            (Some(uids), Some(gids)) => Some(IdMapping { uids, gids }),
            (None, None) => None,
            _ => return Err(invalid("uidmap and gidmap must be given together")),
        };
        Ok(parsed)
    }

    /// The file system's options as mount(2) takes them.
    pub(super) fn data_string(&self) -> String {
        self.data.join(",")
    }

    pub(super) fn is_bind(&self) -> bool {
        self.flags.contains(MsFlags::MS_BIND)
    }

    pub(super) fn is_recursive(&self) -> bool {
        self.flags.contains(MsFlags::MS_REC)
    }

    pub(super) fn is_remount(&self) -> bool {
        self.flags.contains(MsFlags::MS_REMOUNT)
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.flags.contains(MsFlags::MS_RDONLY)
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// `0:100000:65536,65536:200000:1`: the form containerd writes, ranges split at commas.
fn parse_ranges(text: &str) -> io::Result<Vec<IdRange>> {
    text.split(',')
        .map(|range| {
            let mut numbers = range.split(':').map(|number| {
                // Rust reads a leading plus; the form has none.
                number
                    .bytes()
                    .all(|b| b.is_ascii_digit())
                    .then(|| number.parse().ok())
                    .flatten()
            });
            match (
                numbers.next(),
                numbers.next(),
                numbers.next(),
                numbers.next(),
            ) {
                (Some(Some(inside)), Some(Some(outside)), Some(Some(count)), None) if count > 0 => {
                    Ok(IdRange {
                        inside,
                        outside,
                        count,
                    })
                }
                _ => Err(invalid(&format!(
                    "id mapping {range:?} is not inside:outside:count"
                ))),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(options: &[&str]) -> io::Result<Options> {
        Options::parse(&options.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn words_are_sorted_by_who_acts_on_them() {
        let options = parse(&[
            "rbind",
            "ro",
            "nosuid",
            "suid",
            "rslave",
            "shared",
            "loop",
            "direct-io",
            "X-containerd.mkdir.path=/x:0755",
            "index=off",
            "lowerdir=/a,b:/c",
            "defaults",
        ])
        .unwrap();
        assert_eq!(
            options.flags,
            MsFlags::MS_BIND | MsFlags::MS_REC | MsFlags::MS_RDONLY
        );
        assert_eq!(
            options.propagation,
            [MsFlags::MS_SLAVE | MsFlags::MS_REC, MsFlags::MS_SHARED]
        );
        assert_eq!(options.data_string(), "index=off,lowerdir=/a,b:/c");
        assert!(options.loop_device && options.direct_io);
        assert!(options.is_bind() && options.is_recursive() && options.is_read_only());
        assert!(!options.is_remount());
    }

    #[test]
    fn direct_io_without_a_loop_device_is_the_file_systems_business() {
        assert_eq!(parse(&["direct-io"]).unwrap().data, ["direct-io"]);
    }

    #[test]
    fn one_mapping_alone_or_a_malformed_one_is_refused() {
        for bad in [
            &["uidmap=0:1:1"][..],
            &["gidmap=0:1:1"],
            &["uidmap=0:1", "gidmap=0:1:1"],
            &["uidmap=0:1:1:1", "gidmap=0:1:1"],
            &["uidmap=", "gidmap=0:1:1"],
            &["uidmap=0:1:1,", "gidmap=0:1:1"],
            &["uidmap=+0:1:1", "gidmap=0:1:1"],
            &["uidmap=-1:1:1", "gidmap=0:1:1"],
            &["uidmap=0:4294967296:1", "gidmap=0:1:1"],
            &["uidmap=0:1:0", "gidmap=0:1:1"],
        ] {
            let error = parse(bad).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bad:?}");
        }
    }

    const FLAG_WORDS: [(&str, &str, MsFlags); 10] = [
        ("ro", "rw", MsFlags::MS_RDONLY),
        ("nosuid", "suid", MsFlags::MS_NOSUID),
        ("nodev", "dev", MsFlags::MS_NODEV),
        ("noexec", "exec", MsFlags::MS_NOEXEC),
        ("sync", "async", MsFlags::MS_SYNCHRONOUS),
        ("mand", "nomand", MsFlags::MS_MANDLOCK),
        ("noatime", "atime", MsFlags::MS_NOATIME),
        ("nodiratime", "diratime", MsFlags::MS_NODIRATIME),
        ("relatime", "norelatime", MsFlags::MS_RELATIME),
        ("strictatime", "nostrictatime", MsFlags::MS_STRICTATIME),
    ];

    proptest! {
        #[test]
        fn the_last_word_about_a_flag_wins_and_data_keeps_its_order(
            words in prop::collection::vec((0..FLAG_WORDS.len(), any::<bool>(), "[a-z]{3}=[ -~]{0,12}"), 0..40)
        ) {
            let mut options = Vec::new();
            for (index, set, data) in &words {
                let (on, off, _) = FLAG_WORDS[*index];
                options.push(if *set { on } else { off }.to_string());
                options.push(data.clone());
            }
            let parsed = Options::parse(&options).unwrap();
            for (index, (_, _, flag)) in FLAG_WORDS.iter().enumerate() {
                let last = words.iter().rev().find(|(i, _, _)| *i == index).is_some_and(|(_, set, _)| *set);
                prop_assert_eq!(parsed.flags.contains(*flag), last);
            }
            let data: Vec<_> = words.iter().map(|(_, _, data)| data.clone()).collect();
            prop_assert_eq!(parsed.data_string(), data.join(","));
        }

        #[test]
        fn id_ranges_come_back_as_written(
            ranges in prop::collection::vec((any::<u32>(), any::<u32>(), 1..u32::MAX), 1..20)
        ) {
            let text: Vec<_> = ranges.iter().map(|(a, b, c)| format!("{a}:{b}:{c}")).collect();
            let text = text.join(",");
            let parsed = parse(&[&format!("uidmap={text}"), &format!("gidmap={text}")]).unwrap();
            let mapping = parsed.id_mapping.unwrap();
            prop_assert_eq!(&mapping.uids, &mapping.gids);
            let back: Vec<_> = mapping.uids.iter().map(|r| (r.inside, r.outside, r.count)).collect();
            prop_assert_eq!(back, ranges);
            prop_assert!(parsed.data.is_empty());
        }

        #[test]
        fn any_text_is_read_without_a_panic(options in prop::collection::vec(any::<String>(), 0..20)) {
            let _ = Options::parse(&options);
        }
    }
}
