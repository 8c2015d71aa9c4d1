//! Running client commands: output captured while it comes, an end that is waited for with a
//! deadline, nothing left running when a test gives up.

#![expect(
    clippy::disallowed_methods,
    reason = "the ban keeps the shims to one reaper; a test harness starts programs the plain way"
)]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{Read, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::{LONG, SHORT};

/// What a command left: its exit code and everything it printed.
#[derive(Debug)]
pub struct Output {
    /// The command line, for messages.
    pub text: String,
    /// The exit code; 128 plus the signal number when a signal ended it.
    pub code: i32,
    /// Standard output, lossily as text.
    pub stdout: String,
    /// Standard error, lossily as text.
    pub stderr: String,
}

impl Output {
    /// Asserts that the command ended with exit code 0, and gives the output on.
    ///
    /// # Panics
    ///
    /// With the whole output, when the exit code is another.
    #[must_use]
    pub fn ok(self) -> Output {
        self.code_is(0)
    }

    /// Asserts that the command ended with exit code `code`, and gives the output on.
    ///
    /// # Panics
    ///
    /// With the whole output, when the exit code is another.
    #[must_use]
    pub fn code_is(self, code: i32) -> Output {
        assert!(self.code == code, "exit code is not {code}: {self}");
        self
    }

    /// Standard output without the white space around it.
    #[must_use]
    pub fn line(&self) -> &str {
        self.stdout.trim()
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ended with {}\n--- stdout\n{}--- stderr\n{}---",
            self.text, self.code, self.stdout, self.stderr
        )
    }
}

/// A [`Command`] for `program` with these arguments.
pub fn command<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = S>,
) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Runs a command to its end, with empty standard input, for at most [`LONG`].
///
/// # Panics
///
/// When it cannot be started or does not end in time.
#[must_use]
pub fn run(command: Command) -> Output {
    let mut running = Running::start(command);
    running.close_stdin();
    running.wait(LONG)
}

/// Wraps a command so that it has a terminal as its standard streams: `script` of bsdutils makes
/// the pseudo-terminal and passes on the exit code.
#[must_use]
pub fn in_terminal(inner: &Command) -> Command {
    let quoted: Vec<String> = std::iter::once(inner.get_program())
        .chain(inner.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''")))
        .collect();
    command("script", ["-q", "-e", "-c", &quoted.join(" "), "/dev/null"])
}

/// A command that is running: its output grows while the test looks at it. Dropping it kills it.
pub struct Running {
    text: String,
    pid: Pid,
    stdin: Option<ChildStdin>,
    stdout: Arc<Capture>,
    stderr: Arc<Capture>,
    ended: Receiver<ExitStatus>,
    status: Option<ExitStatus>,
}

impl Running {
    /// Starts `command` with all three streams captured.
    ///
    /// # Panics
    ///
    /// When it cannot be started; the message names the program.
    #[must_use]
    pub fn start(mut command: Command) -> Running {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Running::spawn(command)
    }

    /// Starts `command` as a daemon: no input, all output appended to the file `log`.
    ///
    /// # Panics
    ///
    /// When it cannot be started or the file cannot be opened.
    #[must_use]
    pub fn start_logged(mut command: Command, log: &Path) -> Running {
        let open = || OpenOptions::new().create(true).append(true).open(log);
        match (open(), open()) {
            (Ok(stdout), Ok(stderr)) => {
                command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
            }
            (Err(error), _) | (_, Err(error)) => panic!("{}: {error}", log.display()),
        }
        Running::spawn(command)
    }

    fn spawn(mut command: Command) -> Running {
        let text = describe(&command);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start `{text}`: {error}"));
        let stdout = Capture::of(child.stdout.take());
        let stderr = Capture::of(child.stderr.take());
        let stdin = child.stdin.take();
        let pid = Pid::from_raw(child.id().cast_signed());
        let (send, ended) = channel();
        // The waiter owns the child: until it has reaped it, the pid cannot be anyone else's.
        std::thread::spawn(move || {
            if let Ok(status) = child.wait() {
                let _ = send.send(status);
            }
        });
        Running {
            text,
            pid,
            stdin,
            stdout,
            stderr,
            ended,
            status: None,
        }
    }

    /// The process id of the command.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Writes to the command's standard input.
    ///
    /// # Panics
    ///
    /// When its standard input is closed.
    pub fn type_in(&mut self, text: &str) {
        let written = self.stdin.as_mut().map(|stdin| {
            stdin
                .write_all(text.as_bytes())
                .and_then(|()| stdin.flush())
        });
        assert!(
            matches!(written, Some(Ok(()))),
            "`{}` takes no input: {written:?}",
            self.text
        );
    }

    /// Closes the command's standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits until standard output satisfies `wanted`, and returns all of it so far.
    ///
    /// # Panics
    ///
    /// When `within` has passed, or the output ended, without it; the message has the output.
    pub fn stdout_until(&self, within: Duration, wanted: impl Fn(&str) -> bool) -> String {
        match self.stdout.until(within, &wanted) {
            Ok(text) => text,
            Err(text) => panic!(
                "`{}` did not print what is awaited within {within:?}\n--- stdout\n{text}\n--- stderr\n{}---",
                self.text,
                self.stderr.text()
            ),
        }
    }

    /// Sends a signal, if the command has not ended yet.
    pub fn signal(&mut self, signal: Signal) {
        if !self.has_ended() {
            let _ = kill(self.pid, signal);
        }
    }

    /// Whether the command has ended.
    pub fn has_ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.ended.try_recv().ok();
        }
        self.status.is_some()
    }

    /// Waits for the end of the command and takes what it printed.
    ///
    /// # Panics
    ///
    /// When it has not ended after `within`: it is killed, and the message has its output.
    pub fn wait(&mut self, within: Duration) -> Output {
        let status = match self.status {
            Some(status) => Ok(status),
            None => self.ended.recv_timeout(within),
        };
        match status {
            Ok(status) => {
                self.status = Some(status);
                // A process the command left behind may hold its output open: do not wait for ever.
                let stdout = self.stdout.to_end(SHORT);
                let stderr = self.stderr.to_end(SHORT);
                let code = status
                    .code()
                    .or_else(|| status.signal().map(|signal| 128 + signal));
                Output {
                    text: self.text.clone(),
                    code: code.unwrap_or(-1),
                    stdout,
                    stderr,
                }
            }
            Err(reason) => {
                let _ = kill(self.pid, Signal::SIGKILL);
                let why = match reason {
                    RecvTimeoutError::Timeout => "did not end in time",
                    RecvTimeoutError::Disconnected => "could not be waited for",
                };
                panic!(
                    "`{}` {why} ({within:?})\n--- stdout\n{}\n--- stderr\n{}---",
                    self.text,
                    self.stdout.text(),
                    self.stderr.text()
                )
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = self.ended.recv_timeout(SHORT);
        }
    }
}

/// One output stream of a command, as far as it has come.
struct Capture {
    state: Mutex<Captured>,
    grown: Condvar,
}

#[derive(Default)]
struct Captured {
    bytes: Vec<u8>,
    ended: bool,
}

impl Capture {
    /// Starts a thread that reads `stream` to its end.
    fn of(stream: Option<impl Read + Send + 'static>) -> Arc<Capture> {
        let capture = Arc::new(Capture {
            state: Mutex::default(),
            grown: Condvar::new(),
        });
        let writer = Arc::clone(&capture);
        std::thread::spawn(move || {
            let mut chunk = [0; 16 * 1024];
            if let Some(mut stream) = stream {
                while let Ok(count @ 1..) = stream.read(&mut chunk) {
                    writer.lock().bytes.extend_from_slice(&chunk[..count]);
                    writer.grown.notify_all();
                }
            }
            writer.lock().ended = true;
            writer.grown.notify_all();
        });
        capture
    }

    fn lock(&self) -> MutexGuard<'_, Captured> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    /// The text once `wanted` holds; the text so far as the error when it never does.
    fn until(&self, within: Duration, wanted: &dyn Fn(&str) -> bool) -> Result<String, String> {
        let started = Instant::now();
        let mut state = self.lock();
        loop {
            let text = String::from_utf8_lossy(&state.bytes).into_owned();
            if wanted(&text) {
                return Ok(text);
            }
            let left = within.saturating_sub(started.elapsed());
            if state.ended || left.is_zero() {
                return Err(text);
            }
            state = self
                .grown
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Everything up to the end of the stream, or up to now when it stays open for `within`.
    fn to_end(&self, within: Duration) -> String {
        let started = Instant::now();
        let mut state = self.lock();
        while !state.ended && started.elapsed() < within {
            let left = within.saturating_sub(started.elapsed());
            state = self
                .grown
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        String::from_utf8_lossy(&state.bytes).into_owned()
    }
}

fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        let _ = write!(text, " {}", arg.to_string_lossy());
    }
    text
}
