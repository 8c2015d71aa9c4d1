//! The sink of the `log` facade: one logfmt line per record, to the FIFO `log` of the bundle.
//!
//! containerd reads that FIFO into its own log. A shim outlives the reader (DESIGN, shim-contract
//! section 6.3), so the sink never waits for it: a line that finds no room or no reader is dropped
//! and counted, and the count is told with the first line that gets through again. A line is at
//! most `PIPE_BUF` bytes, which a pipe takes whole or not at all (pipe(7)).

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use log::{LevelFilter, Log, Metadata, Record};

/// The longest line, its newline included.
const LINE_LIMIT: usize = 4096;
/// What stands at the end of a message that was cut.
const CUT: &str = "...";

/// Where lines go.
#[derive(Debug)]
enum Output {
    /// Descriptor 2: the FIFO, opened by whoever started us, or a terminal.
    Stderr,
    /// The FIFO at this path, opened when a line is there for it.
    Fifo {
        path: PathBuf,
        open: Option<OwnedFd>,
    },
}

#[derive(Debug)]
struct State {
    output: Output,
    /// Lines lost since the last one that got through.
    dropped: u64,
}

/// The sink. There is one in a process, but nothing here relies on it.
#[derive(Debug)]
pub struct Sink {
    /// What is said of the shim in every line: ` runtime=… namespace=… id=…`.
    context: String,
    level: LevelFilter,
    state: Mutex<State>,
}

/// Makes the process log to the FIFO `log` in the working directory: through descriptor 2 where
/// that is the FIFO already, else by opening it when there is a reader. Panics are logged too.
/// A second call changes nothing.
pub fn to_fifo(runtime: &str, namespace: &str, id: &str, debug: bool) {
    let stderr = io::stderr();
    let path = std::env::current_dir()
        .unwrap_or_default()
        .join(task_api::bundle::LOG);
    let output = if is_fifo(&stderr) {
        // For the panic of a thread that has no hook left, and for the allocator's last words, it
        // must not block either. A failure leaves it as our own start made it: nonblocking.
        let _ = sys::pipe::set_nonblocking(&stderr, true);
        Output::Stderr
    } else {
        Output::Fifo { path, open: None }
    };
    install(Sink::new(
        output,
        &[("runtime", runtime), ("namespace", namespace), ("id", id)],
        debug,
    ));
    std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
}

/// Makes the process log to descriptor 2: for `delete`, whose stderr containerd logs as warnings.
pub fn to_stderr(runtime: &str, namespace: &str, id: &str, debug: bool) {
    let context = [("runtime", runtime), ("namespace", namespace), ("id", id)];
    install(Sink::new(Output::Stderr, &context, debug));
}

fn install(sink: Sink) {
    let level = sink.level;
    if log::set_boxed_logger(Box::new(sink)).is_ok() {
        log::set_max_level(level);
    }
}

fn is_fifo(fd: impl AsFd) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let metadata = fd.as_fd().try_clone_to_owned().map(std::fs::File::from);
    metadata
        .and_then(|file| file.metadata())
        .is_ok_and(|found| found.file_type().is_fifo())
}

impl Sink {
    fn new(output: Output, fields: &[(&str, &str)], debug: bool) -> Self {
        let mut context = String::new();
        for (name, value) in fields {
            if !value.is_empty() {
                let _ = write!(context, " {name}=");
                push_value(&mut context, value, false);
            }
        }
        let level = if debug {
            LevelFilter::Debug
        } else {
            LevelFilter::Info
        };
        Self {
            context,
            level,
            state: Mutex::new(State { output, dropped: 0 }),
        }
    }

    fn line(&self, at: SystemTime, level: log::Level, message: &str) -> String {
        let mut line = String::with_capacity(128 + message.len());
        line.push_str("time=\"");
        push_time(&mut line, at);
        let level = match level {
            log::Level::Error => "error",
            log::Level::Warn => "warning",
            log::Level::Info => "info",
            log::Level::Debug => "debug",
            log::Level::Trace => "trace",
        };
        let _ = write!(line, "\" level={level} msg=");
        push_value(&mut line, message, true);
        let room = LINE_LIMIT - 1 - self.context.len().min(LINE_LIMIT / 2);
        if line.len() > room {
            // Not within a character, nor behind a backslash that escapes the quote.
            let mut end = floor_char(&line, room - CUT.len() - 1);
            while line[..end].ends_with('\\') {
                end -= 1;
            }
            line.truncate(end);
            line.push_str(CUT);
            line.push('"');
        }
        line.push_str(&self.context);
        line.truncate(floor_char(&line, LINE_LIMIT - 1));
        line.push('\n');
        line
    }
}

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = record.args().to_string();
        let line = self.line(SystemTime::now(), record.level(), &message);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.dropped > 0 {
            let text = format!("{} log lines were lost: nobody read them", state.dropped);
            let notice = self.line(SystemTime::now(), log::Level::Warn, &text);
            if !state.output.write(&notice) {
                state.dropped = state.dropped.saturating_add(1);
                return;
            }
            state.dropped = 0;
        }
        if !state.output.write(&line) {
            state.dropped = state.dropped.saturating_add(1);
        }
    }

    fn flush(&self) {}
}

impl Output {
    /// Writes one line; false when it is lost.
    fn write(&mut self, line: &str) -> bool {
        let written = match self {
            Self::Stderr => write_once(io::stderr(), line),
            Self::Fifo { path, open } => {
                let fd = match open.take() {
                    Some(fd) => Ok(fd),
                    // ENXIO: nobody reads yet. The next line tries again.
                    None => sys::pipe::open_fifo(path, libc::O_WRONLY),
                };
                fd.and_then(|fd| {
                    let mut file = std::fs::File::from(fd);
                    let written = write_once(&mut file, line);
                    // The FIFO is the same when its next reader comes: keep it.
                    *open = Some(file.into());
                    written
                })
            }
        };
        written.is_ok()
    }
}

/// One write(2): EAGAIN and EPIPE are not waited out. SIGPIPE is ignored in every Rust program.
fn write_once(mut to: impl io::Write, line: &str) -> io::Result<()> {
    loop {
        match to.write(line.as_bytes()) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The greatest index up to `at` that is no inside of a character.
fn floor_char(text: &str, at: usize) -> usize {
    (0..=at)
        .rev()
        .find(|index| text.is_char_boundary(*index))
        .unwrap_or(0)
        .min(text.len())
}

/// Appends a logfmt value, in quotes where it needs them.
fn push_value(line: &mut String, value: &str, quotes: bool) {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+:".contains(c);
    if !quotes && !value.is_empty() && value.chars().all(plain) {
        line.push_str(value);
        return;
    }
    line.push('"');
    for c in value.chars() {
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\t' => line.push_str("\\t"),
            '\r' => line.push_str("\\r"),
            // A terminal on which the log is read must not obey it.
            c if c.is_control() => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push('"');
}

/// Appends a time as RFC 3339 has it, in UTC, with nanoseconds.
fn push_time(line: &mut String, at: SystemTime) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let second = second % 60;
    let nanos = since.subsec_nanos();
    let _ = write!(
        line,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z"
    );
}

/// The date that is `days` after 1970-01-01. Years are counted from March, so that the leap day is
/// the last of its year; 400 years have 146,097 days.
fn date(days: u64) -> (u64, u64, u64) {
    // From 0000-03-01 to 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months from March on take turns of 31 and 30 days, 153 in five.
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    use std::path::Path;
    use std::time::Duration;

    fn sink(path: &Path) -> Sink {
        let output = Output::Fifo {
            path: path.to_owned(),
            open: None,
        };
        Sink::new(output, &[("namespace", "ns"), ("id", "a b")], false)
    }

    fn say(sink: &Sink, text: &str) {
        sink.log(
            &Record::builder()
                .level(log::Level::Info)
                .args(format_args!("{text}"))
                .build(),
        );
    }

    fn fifo() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut mkfifo = sys::spawn::Spawn::new("/usr/bin/mkfifo");
        mkfifo.args.push(path.clone().into());
        let child = mkfifo.spawn().unwrap();
        assert_eq!(sys::wait::wait_pid(child.pid).unwrap().status, 0);
        (dir, path)
    }

    fn reader(path: &Path) -> std::fs::File {
        std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
            .unwrap()
    }

    fn read(from: &mut std::fs::File) -> String {
        let mut buffer = vec![0; 1 << 20];
        let read = from.read(&mut buffer).unwrap();
        String::from_utf8(buffer[..read].to_vec()).unwrap()
    }

    #[test]
    fn a_line_is_what_containerd_logs() {
        let sink = sink(Path::new("/nonexistent"));
        let at = UNIX_EPOCH + Duration::new(1_709_210_096, 5);
        let line = sink.line(at, log::Level::Warn, "say \"hi\"\nnow\u{1b}[0m");
        assert_eq!(
            line,
            "time=\"2024-02-29T12:34:56.000000005Z\" level=warning \
             msg=\"say \\\"hi\\\"\\nnow\\u001b[0m\" namespace=ns id=\"a b\"\n"
        );
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_819, (2027, 1, 1)),
            (47_540, (2100, 2, 28)),
            (47_541, (2100, 3, 1)),
        ] {
            assert_eq!(date(days), expected);
        }
    }

    #[test]
    fn lines_without_a_reader_are_counted_and_the_count_is_told() {
        let (_dir, path) = fifo();
        let sink = sink(&path);
        say(&sink, "lost 1");
        say(&sink, "lost 2");
        let mut log = reader(&path);
        say(&sink, "heard");
        let text = read(&mut log);
        assert!(text.contains("msg=\"2 log lines were lost"), "{text}");
        assert!(
            text.ends_with("msg=\"heard\" namespace=ns id=\"a b\"\n"),
            "{text}"
        );
        assert!(!text.contains("lost 1"), "{text}");
        // The reader goes (EPIPE) and another comes: containerd was restarted.
        drop(log);
        say(&sink, "lost 3");
        let mut log = reader(&path);
        say(&sink, "heard again");
        let text = read(&mut log);
        assert!(text.contains("msg=\"1 log lines were lost"), "{text}");
        assert!(text.contains("heard again"), "{text}");
    }

    #[test]
    fn a_full_fifo_does_not_block_and_no_line_is_torn() {
        let (_dir, path) = fifo();
        let mut log = reader(&path);
        let sink = sink(&path);
        let long = "x".repeat(10_000);
        for _ in 0..200 {
            say(&sink, &long);
        }
        let text = read(&mut log);
        assert!(text.lines().count() >= 8);
        for line in text.lines() {
            assert!(
                line.starts_with("time=") && line.ends_with("id=\"a b\""),
                "torn: {line}"
            );
            assert!(line.len() < LINE_LIMIT);
        }
        say(&sink, "after");
        assert!(read(&mut log).contains("lines were lost"));
    }

    #[test]
    fn what_is_no_fifo_is_never_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "").unwrap();
        say(&sink(&path), "x");
        assert_eq!(std::fs::read(&path).unwrap(), b"");
    }

    proptest! {
        #[test]
        fn a_line_is_one_line_and_bounded(message in "\\PC{0,3000}|[\\x00-\\x7f]{0,6000}") {
            let line = sink(Path::new("/x")).line(UNIX_EPOCH, log::Level::Info, &message);
            prop_assert!(line.len() <= LINE_LIMIT);
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert!(line.ends_with("id=\"a b\"\n"));
        }
    }
}
