//! What the daemon is told: one effective configuration, whatever version of the file it is from.

mod file;

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

pub use file::Remark;

/// The largest message that clients may send or are sent, unless said otherwise, in bytes.
const MESSAGE_LIMIT: usize = 16 << 20;
/// Where the file is, unless said otherwise.
const DEFAULT_FILE: &str = "/etc/containerd/config.toml";
/// How deep imports may go.
const IMPORT_DEPTH: usize = 8;

/// What is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// What must survive a reboot.
    pub root: PathBuf,
    /// What must not: bundles, sockets.
    pub state: PathBuf,
    /// The daemon's own score for the kernel's out-of-memory killer; 0 leaves it alone.
    pub oom_score: i32,
    /// The gRPC socket.
    pub address: PathBuf,
    /// Owner of both sockets.
    pub uid: u32,
    /// Group of both sockets.
    pub gid: u32,
    /// The largest request, in bytes.
    pub max_receive: usize,
    /// The largest answer, in bytes.
    pub max_send: usize,
    /// What is logged: one of containerd's names.
    pub log_level: String,
    /// How it is logged: `text` or `json`; empty for `text`.
    pub log_format: String,
    /// Where metrics are served over HTTP (`host:port`); empty for nowhere.
    pub metrics_address: String,
    /// Whether the metrics have histograms of how long calls took.
    pub grpc_histogram: bool,
    /// Whether containers are left out of the metrics.
    pub no_prometheus: bool,
    /// Whether shims log more even where the daemon does not.
    pub shim_debug: bool,
    /// The OCI runtime of containers of `io.containerd.runtime.v1.linux` that name none.
    pub legacy_runtime: String,
    /// The folder that this runtime keeps its state in.
    pub legacy_root: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/containerd".into(),
            state: "/run/containerd".into(),
            oom_score: 0,
            address: "/run/containerd/containerd.sock".into(),
            uid: 0,
            gid: 0,
            max_receive: MESSAGE_LIMIT,
            max_send: MESSAGE_LIMIT,
            log_level: String::new(),
            log_format: String::new(),
            metrics_address: String::new(),
            grpc_histogram: false,
            no_prometheus: false,
            shim_debug: false,
            legacy_runtime: String::new(),
            legacy_root: String::new(),
        }
    }
}

/// A limit as the file has it: 0 means the default.
fn message_limit(value: u32) -> usize {
    match usize::try_from(value) {
        Ok(0) | Err(_) => MESSAGE_LIMIT,
        Ok(value) => value,
    }
}

impl Config {
    /// What the file says, and what is to be said about the file. Without `path` the default file
    /// is read if there is one; a file that is named must be there.
    ///
    /// # Errors
    /// The remark for which the file is refused.
    pub fn load(path: Option<&Path>) -> Result<(Self, Vec<Remark>), Remark> {
        let mut config = Self::default();
        let mut remarks = Vec::new();
        let file = path.unwrap_or_else(|| Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(file) {
            Ok(text) => config.read(file, &text, &mut remarks, 0)?,
            Err(error) if path.is_none() && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(refusal(file, error.to_string())),
        }
        for (name, folder) in [("root", &config.root), ("state", &config.state)] {
            if !folder.is_absolute() {
                return Err(refusal(file, format!("{name}: must be an absolute path")));
            }
        }
        if config.root == config.state {
            return Err(refusal(
                file,
                "root and state must be different folders".to_owned(),
            ));
        }
        Ok((config, remarks))
    }

    fn read(
        &mut self,
        path: &Path,
        text: &str,
        remarks: &mut Vec<Remark>,
        depth: usize,
    ) -> Result<(), Remark> {
        let imports = file::apply(path, text, self, remarks)?;
        if depth == IMPORT_DEPTH && !imports.is_empty() {
            return Err(refusal(path, "imports: nested too deep".to_owned()));
        }
        for import in imports {
            let files = matching(path, &import)
                .map_err(|error| refusal(path, format!("imports: {import}: {error}")))?;
            for file in files {
                let text = std::fs::read_to_string(&file)
                    .map_err(|error| refusal(&file, error.to_string()))?;
                self.read(&file, &text, remarks, depth + 1)?;
            }
        }
        Ok(())
    }

    /// What is in force, as a file of version 2.
    pub fn dump(&self) -> String {
        let mut text = String::from("version = 2\n");
        let path = |path: &Path| format!("{:?}", path.display().to_string());
        let mut line = |args: std::fmt::Arguments<'_>| {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{args}");
        };
        line(format_args!("root = {}", path(&self.root)));
        line(format_args!("state = {}", path(&self.state)));
        line(format_args!("oom_score = {}", self.oom_score));
        line(format_args!(
            "\n[grpc]\n  address = {}",
            path(&self.address)
        ));
        line(format_args!("  uid = {}\n  gid = {}", self.uid, self.gid));
        line(format_args!(
            "  max_recv_message_size = {}",
            self.max_receive
        ));
        line(format_args!("  max_send_message_size = {}", self.max_send));
        line(format_args!("\n[debug]\n  level = {:?}", self.log_level));
        line(format_args!(
            "\n[plugins.\"io.containerd.runtime.v1.linux\"]"
        ));
        line(format_args!("  runtime = {:?}", self.legacy_runtime));
        line(format_args!("  runtime_root = {:?}", self.legacy_root));
        line(format_args!("  shim_debug = {}", self.shim_debug));
        text
    }
}

fn refusal(file: &Path, text: String) -> Remark {
    Remark {
        file: file.to_owned(),
        line: 1,
        text,
    }
}

/// The files that an import names: one, or all of a folder that fit a `*` in the last part of the
/// path. A relative path begins where the importing file is.
fn matching(from: &Path, import: &str) -> io::Result<Vec<PathBuf>> {
    let path = from.parent().unwrap_or_else(|| Path::new("/")).join(import);
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let Some((start, end)) = name.split_once('*') else {
        return Ok(vec![path]);
    };
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?.file_name().to_string_lossy().into_owned();
        let fits = entry.len() >= start.len() + end.len();
        if fits && entry.starts_with(start) && entry.ends_with(end) {
            found.push(folder.join(entry));
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<(Config, Vec<Remark>), Remark> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        std::fs::write(dir.path().join("more.toml"), "oom_score = -7\n").unwrap();
        Config::load(Some(&file))
    }

    #[test]
    fn every_version_means_the_same() {
        let body = "root = '/r'\n[grpc]\naddress = '/a'\ngid = 7\n[debug]\nlevel = 'debug'\n";
        let (first, remarks) = load(body).unwrap();
        assert_eq!(remarks, []);
        assert_eq!((first.address.as_path(), first.gid), (Path::new("/a"), 7));
        for version in 2..=3 {
            assert_eq!(
                load(&format!("version = {version}\n{body}")).unwrap().0,
                first
            );
        }
        let fourth = "version = 4\nroot = '/r'\n[plugins.'io.containerd.server.v1.grpc']\n\
            address = '/a'\ngid = 7\n[plugins.'io.containerd.server.v1.debug']\nlevel = 'debug'\n";
        assert_eq!(load(fourth).unwrap(), (first.clone(), vec![]));
        assert_eq!(load(&first.dump()).unwrap(), (first, vec![]));
    }

    #[test]
    fn a_file_of_containerd_1_2_loads_with_every_key_accounted_for() {
        let text = include_str!("testdata/1.2.4.toml");
        let (config, remarks) = load(text).unwrap();
        assert_eq!(config.legacy_runtime, "runc");
        let keys = text.lines().filter(|line| line.contains(" = ")).count();
        // root, state, oom_score, five of grpc, level, three of linux, three of metrics.
        assert_eq!(remarks.len(), keys - 15, "{remarks:#?}");
        for remark in &remarks {
            let line = text.lines().nth(remark.line - 1).unwrap();
            let key = line.trim().split(" = ").next().unwrap();
            assert!(
                remark.text.contains(key.trim_matches('"')),
                "{remark}: {line}"
            );
            assert!(!remark.text.contains("no such key"), "{remark}");
        }
    }

    #[test]
    fn a_broken_file_is_refused_with_its_line() {
        for (text, line, about) in [
            ("root = '/r'\n[grpc\n", 2, ""),
            ("\n\noom_score = 'x'\n", 3, "oom_score"),
            ("[grpc]\nuid = -1\n", 2, "grpc.uid"),
            ("version = 9\n", 1, "version"),
            ("root = 'relative'\n", 1, "root"),
        ] {
            let refusal = load(text).unwrap_err();
            assert_eq!(refusal.line, line, "{refusal}");
            assert!(refusal.text.contains(about), "{refusal}");
        }
        Config::load(Some(Path::new("/nonexistent"))).unwrap_err();
    }

    #[test]
    fn imports_are_read_after_the_file() {
        let (config, _) = load("version = 2\nimports = ['m*.toml']\noom_score = 3\n").unwrap();
        assert_eq!(config.oom_score, -7);
        let (_, remarks) = load("no_such = 1\n").unwrap();
        assert!(remarks[0].text.contains("no_such"), "{remarks:?}");
    }
}
