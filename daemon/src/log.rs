//! The daemon's log: one line per message on stderr, as `key=value` pairs or as JSON.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Stderr;

/// Whether lines are JSON.
static JSON: AtomicBool = AtomicBool::new(false);

impl Log for Stderr {
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
        let line = if JSON.load(Ordering::Relaxed) {
            let text = serde_json::Value::from(text);
            format!("{{\"level\":\"{level}\",\"msg\":{text},\"time\":\"{time}\"}}\n")
        } else {
            format!("time=\"{time}\" level={level} msg={text:?}\n")
        };
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

/// Logs what is at least as grave as `level`: one of containerd's names (`trace` to `panic`);
/// empty means `info`.
///
/// # Errors
/// A text that names the levels.
pub fn init(level: &str) -> Result<(), String> {
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
    let _ = log::set_logger(&Stderr);
    log::set_max_level(filter);
    Ok(())
}

/// Writes lines from now on in the format that the configuration names: `text` (also empty), or
/// `json`.
///
/// # Errors
/// A text that names the formats.
pub fn set_format(format: &str) -> Result<(), String> {
    let json = match format {
        "" | "text" => false,
        "json" => true,
        other => return Err(format!("log format {other:?}: not one of text, json")),
    };
    JSON.store(json, Ordering::Relaxed);
    Ok(())
}
