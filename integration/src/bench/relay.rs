//! Standard output of a container through the shim into the client's FIFO.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::thread;
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::bed::Bed;
use crate::bundle::Spec;
use crate::stdio::make_fifo;

use super::options::Options;
use super::process::cpu_seconds;
use super::rig::{Rig, Subject};
use super::runtime::quickest;
use super::samples::Samples;

/// Rounds, of which the median counts.
const ROUNDS: usize = 7;
/// How much the container writes and the reader reads at once.
const BLOCK: u64 = 64 << 10;

/// Metrics `stdout-rate` in MB/s, from the first byte to the end of file as the reader sees them,
/// and `stdout-cpu`, the shim's processor seconds per GB.
pub fn measure(bed: &Bed, options: &Options, subjects: &[Subject], samples: &mut Samples) {
    let bytes = options.stdout_bytes();
    let runtime = quickest(bed);
    let writer = format!("exec dd if=/dev/zero bs={BLOCK} count={}", bytes / BLOCK);
    for round in 0..ROUNDS {
        super::progress(round + 1, ROUNDS);
        for turn in 0..subjects.len() {
            let subject = &subjects[(turn + round) % subjects.len()];
            let id = format!("{}-{round}", subject.name);
            let rig = Rig::start(bed, subject, &runtime, &id, &Spec::sh(&writer));
            let fifo = bed.fifo(&id);
            make_fifo(&fifo);
            let reader = start_reader(&fifo);
            let stdout = fifo.display().to_string();
            rig.task
                .create(&rig.bundle.create_with("", &stdout, &bed.drain()))
                .expect("Create");
            let before = cpu_seconds(rig.pid);
            rig.task.start(&id, "").expect("Start");
            let (seconds, read) = reader.join().expect("the reader ends well");
            let cpu = cpu_seconds(rig.pid) - before;
            assert_eq!(read, bytes, "{} lost output", subject.name);
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
            let bytes = bytes as f64;
            samples.push("stdout-rate", subject.name, bytes / 1e6 / seconds);
            samples.push("stdout-cpu", subject.name, cpu / (bytes / 1e9));
            rig.end(subject);
            std::fs::remove_file(&fifo).expect("remove the FIFO");
        }
    }
}

/// Reads the FIFO to its end; gives the seconds since the first byte and the number of bytes.
fn start_reader(path: &Path) -> thread::JoinHandle<(f64, u64)> {
    let mut file = File::options()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .expect("open the FIFO for reading");
    thread::spawn(move || {
        // A FIFO that never had a writer is at its end for read, but not for poll.
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::NONE).expect("wait for the first byte");
        let begin = Instant::now();
        fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).expect("make the FIFO block");
        let mut buffer = vec![0; usize::try_from(BLOCK).expect("64 KiB")];
        let mut all = 0;
        loop {
            match file.read(&mut buffer).expect("read the FIFO") {
                0 => return (begin.elapsed().as_secs_f64(), all),
                n => all += n as u64,
            }
        }
    })
}
