//! A terminal, with somebody at it.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::LIMIT;

/// A terminal of the test's own: the side that a person would sit at.
pub struct Terminal {
    master: fs::File,
    seen: Arc<Mutex<String>>,
}

impl Terminal {
    /// Runs a command on a new terminal of this size, as the leader of a session on it.
    #[track_caller]
    pub fn start(command: &Command, columns: u16, rows: u16) -> (Self, Child) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let terminal = Self {
            master: master.into(),
            seen: Arc::default(),
        };
        terminal.resize(columns, rows);
        let open = || {
            let mut options = fs::OpenOptions::new();
            options.read(true).write(true).open(&name).unwrap()
        };
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]);
        session.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        session.env("TERM", "xterm");
        let child = session
            .stdin(open())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap();
        drop(session);
        let (mut reader, seen) = (terminal.master.try_clone().unwrap(), terminal.seen.clone());
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length @ 1..) = reader.read(&mut chunk) {
                let text = String::from_utf8_lossy(&chunk[..length]).into_owned();
                seen.lock().unwrap().push_str(&text);
            }
        });
        (terminal, child)
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        let size = Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.master, size).unwrap();
    }

    pub fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    pub fn seen(&self) -> String {
        self.seen.lock().unwrap().clone()
    }

    /// Waits for a text on the screen.
    #[track_caller]
    pub fn expect(&self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.seen().contains(text) {
            let seen = self.seen();
            assert!(Instant::now() < deadline, "no {text:?} on {seen:?}");
            thread::park_timeout(Duration::from_millis(20));
        }
    }
}
