//! The daemon's log: one line per message on stderr or in a file, as `key=value` pairs or JSON.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};

/// A file that has grown to this many bytes is put aside when the daemon starts.
const FILE_LIMIT: u64 = 16 << 20;

struct Sink {
    json: bool,
    /// Where it goes instead of stderr.
    file: Option<File>,
}

impl Log for Sink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What the libraries underneath say at debug is of no use to who runs the daemon.
        metadata.level() <= Level::Info || metadata.target().starts_with("daemon")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let level = match record.level() {
            Level::Warn => "warning".to_owned(),
            other => other.as_str().to_ascii_lowercase(),
        };
        let time = core_api::Timestamp::from(SystemTime::now());
        let text = record.args().to_string();
        // One write per line, so that lines of several threads do not mix.
        let line = if self.json {
            let line = serde_json::json!({"time": time.to_string(), "level": level, "msg": text});
            format!("{line}\n")
        } else {
            format!("time=\"{time}\" level={level} msg={text:?}\n")
        };
        let _ = match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None => std::io::stderr().write_all(line.as_bytes()),
        };
    }

    fn flush(&self) {}
}

/// Logs what is at least as grave as `level`: one of containerd's names (`trace` to `panic`);
/// empty means `info`. The lines are JSON when `format` is `json`, and go to the end of `file` if
/// there is one, else to stderr.
///
/// # Errors
/// A text that names the levels, or the file that cannot be opened.
pub fn init(level: &str, format: &str, file: Option<&Path>) -> Result<(), String> {
    let filter = match level {
        "" | "info" => LevelFilter::Info,
        "trace" => LevelFilter::Trace,
        "debug" => LevelFilter::Debug,
        "warn" | "warning" => LevelFilter::Warn,
        "error" | "fatal" | "panic" => LevelFilter::Error,
        other => {
            return Err(format!(
                "log level {other:?}: not one of trace, debug, info, warn, error, fatal, panic"
            ));
        }
    };
    // Refused only where a logger is installed already, which then stays.
    let sink = Sink {
        json: format == "json",
        file: file.map(open).transpose()?,
    };
    let _ = log::set_boxed_logger(Box::new(sink));
    log::set_max_level(filter);
    Ok(())
}

/// Opens the log file, with its folder; one that has become long is put aside as `FILE.old`.
fn open(path: &Path) -> Result<File, String> {
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(folder) = path.parent() {
        crate::serve::folder(folder)?;
    }
    if std::fs::metadata(path).is_ok_and(|meta| meta.len() > FILE_LIMIT) {
        std::fs::rename(path, path.with_extension("log.old")).map_err(told)?;
    }
    let mut options = File::options();
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    options.create(true).append(true).open(path).map_err(told)
}
