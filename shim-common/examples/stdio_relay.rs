//! Measures the relay of standard output through a FIFO, as docs/adr/0004-stdio-path.md reports:
//! `stdio_relay FIFO PROGRAM ARGS...` runs the program with its output relayed to the FIFO, which
//! another process reads, and prints the seconds it took and the processor seconds of this
//! process on standard error. `PIPE_SIZE` and `FIFO_SIZE` in the environment set other sizes than
//! the kernel's 65536 bytes.

use std::env;
use std::io;
use std::time::Instant;

use shim_common::stdio::{Request, open};
use sys::spawn::{Spawn, Stdio};
use tokio::runtime::Builder;
use tokio::sync::oneshot;
use tokio::task::LocalSet;

fn size(name: &str) -> Option<usize> {
    env::var(name).ok()?.parse().ok()
}

fn main() -> io::Result<()> {
    let mut args = env::args_os().skip(1);
    let (Some(fifo), Some(program)) = (args.next(), args.next()) else {
        return Err(io::Error::other("usage: stdio_relay FIFO PROGRAM ARGS..."));
    };
    sys::signal::ignore_sigpipe()?;
    let mut spawn = Spawn::new(program);
    spawn.args.extend(args);
    let request = Request {
        stdout: fifo.to_string_lossy().into_owned(),
        ..Request::default()
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let begin = Instant::now();
    LocalSet::new().block_on(&runtime, async {
        let mut opened = open(&request).await.map_err(io::Error::other)?;
        if let (Some(size), Stdio::Fd(end)) = (size("PIPE_SIZE"), &opened.child.stdout) {
            sys::pipe::set_size(end, size)?;
        }
        if let Some(size) = size("FIFO_SIZE") {
            let fifo = sys::pipe::open_fifo(request.stdout.as_ref(), libc::O_RDONLY)?;
            sys::pipe::set_size(fifo, size)?;
        }
        spawn.stdout = opened.child.stdout;
        spawn.stdin = opened.child.stdin;
        let _child = spawn.spawn()?;
        let (drained, done) = oneshot::channel();
        opened.relay.start(move || {
            let _ = drained.send(());
        });
        done.await.map_err(io::Error::other)
    })?;
    let seconds = begin.elapsed().as_secs_f64();
    let schedstat = std::fs::read_to_string("/proc/self/schedstat")?;
    let nanoseconds: u32 = 1_000_000_000;
    let cpu: f64 = schedstat
        .split(' ')
        .next()
        .and_then(|field| field.parse().ok())
        .unwrap_or(0.0);
    let cpu = cpu / f64::from(nanoseconds);
    #[expect(clippy::print_stderr, reason = "the figures are what this is for")]
    {
        eprintln!("seconds {seconds:.3} cpu {cpu:.3}");
    }
    Ok(())
}
