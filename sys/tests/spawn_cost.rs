//! What a spawn costs beside `std::process::Command`, interleaved on one machine. Run by hand:
//! `cargo test -p wherry-sys --release --test spawn_cost -- --ignored --nocapture`.

use std::process::{Command, Stdio};
use std::time::Instant;

use sys::spawn::Spawn;

const ROUNDS: usize = 1000;

fn median(mut micros: Vec<u128>) -> u128 {
    micros.sort_unstable();
    micros[micros.len() / 2]
}

#[test]
#[ignore = "a measurement"]
#[expect(
    clippy::disallowed_methods,
    reason = "the standard library is what we compare with"
)]
fn spawn_and_wait_for_true() {
    // A parent with memory to copy shows what fork would cost; a shim has next to none.
    for megabytes in [0_usize, 64] {
        let ballast = vec![1_u8; megabytes << 20];
        let (mut ours, mut std_spawn, mut ours_whole, mut std_whole) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let child = Spawn::new("/bin/true").spawn().unwrap();
            ours.push(start.elapsed().as_micros());
            sys::wait::wait_pid(child.pid).unwrap();
            ours_whole.push(start.elapsed().as_micros());

            let start = Instant::now();
            let mut command = Command::new("/bin/true");
            command
                .env_clear()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            std_spawn.push(start.elapsed().as_micros());
            child.wait().unwrap();
            std_whole.push(start.elapsed().as_micros());
        }
        println!(
            "{} MB in the parent, median of {ROUNDS}, µs: spawn {} (std {}), spawn and wait {} (std {})",
            ballast.len() >> 20,
            median(ours),
            median(std_spawn),
            median(ours_whole),
            median(std_whole)
        );
    }
}
