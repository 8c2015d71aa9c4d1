//! Reading a configuration file: its entries with their lines, of any version from 1 to 4.
//!
//! Every key is dealt with by one rule of [`RULES`]: it is in force, or a remark says what
//! replaces it or why it has no effect. A file that is not TOML, or in which a key that would be
//! in force has a value of the wrong kind, is refused whole.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::Config;

/// Something about a configuration that whoever wrote it should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The file it is about.
    pub file: PathBuf,
    /// Its line, from 1 on.
    pub line: usize,
    /// The key and what to do about it; or why the file is refused.
    pub text: String,
}

impl std::fmt::Display for Remark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, self.text)
    }
}

/// What is done with the value of a key.
enum Rule {
    /// It takes effect.
    Text(fn(&mut Config, String)),
    /// It takes effect, as a number that is not negative.
    Number(fn(&mut Config, u32)),
    /// It takes effect, and may be negative.
    Signed(fn(&mut Config, i32)),
    /// It takes effect.
    Flag(fn(&mut Config, bool)),
    /// It is as this daemon does it anyway, or says nothing by itself.
    Known,
    /// It has no effect; the text says what replaces it, or why.
    Remark(&'static str),
}

const CRI: &str = "no effect: this daemon does not serve the kubelet (CRI) yet";
const CRI_RUNTIME: &str = "no effect on containers of ctr and Docker, who name their runtime \
    themselves (io.containerd.runc.v2 with its options); this daemon does not serve the kubelet yet";
const COLLECTOR: &str = "no effect: there are no images and so nothing to collect yet";

/// Keys and what is done with them; the first that fits decides. A `*` at the end fits any rest.
/// The plugins of version 1 have short names; those of later versions their full ones.
const RULES: &[(&str, Rule)] = &[
    ("version", Rule::Known),
    ("imports", Rule::Known),
    (
        "root",
        Rule::Text(|config, value| config.root = value.into()),
    ),
    (
        "state",
        Rule::Text(|config, value| config.state = value.into()),
    ),
    (
        "oom_score",
        Rule::Signed(|config, value| config.oom_score = value),
    ),
    (
        "grpc.address",
        Rule::Text(|config, value| config.address = value.into()),
    ),
    ("grpc.uid", Rule::Number(|config, value| config.uid = value)),
    ("grpc.gid", Rule::Number(|config, value| config.gid = value)),
    (
        "grpc.max_recv_message_size",
        Rule::Number(|config, value| config.max_receive = super::message_limit(value)),
    ),
    (
        "grpc.max_send_message_size",
        Rule::Number(|config, value| config.max_send = super::message_limit(value)),
    ),
    (
        "grpc.tcp_*",
        Rule::Remark("no effect: the API is served on the unix socket only"),
    ),
    (
        "ttrpc.*",
        Rule::Remark("no effect: the ttrpc socket is beside the gRPC socket, with its owner"),
    ),
    (
        "debug.level",
        Rule::Text(|config, value| config.log_level = value),
    ),
    (
        "debug.format",
        Rule::Text(|config, value| config.log_format = value),
    ),
    (
        "debug.*",
        Rule::Remark("no effect: there is no debug socket; `[debug] level` is in force"),
    ),
    (
        "metrics.address",
        Rule::Text(|config, value| config.metrics_address = value),
    ),
    (
        "metrics.grpc_histogram",
        Rule::Flag(|config, value| config.grpc_histogram = value),
    ),
    (
        "cgroup.path",
        Rule::Remark("no effect yet: set the cgroup in the daemon's unit file (Slice=)"),
    ),
    (
        "proxy_plugins.*",
        Rule::Remark("no effect: plugins in other processes are not supported"),
    ),
    ("stream_processors.*", Rule::Remark(COLLECTOR)),
    (
        "timeouts.*",
        Rule::Remark("no effect: waits have fixed bounds (2 s for a shim's state)"),
    ),
    (
        "temp",
        Rule::Remark("no effect: nothing is kept in a temporary folder"),
    ),
    (
        "plugin_dir",
        Rule::Remark("no effect: plugins are not loaded; shims are found by runtime_type"),
    ),
    (
        "disabled_plugins",
        Rule::Remark("no effect: what this daemon serves cannot be switched off"),
    ),
    (
        "required_plugins",
        Rule::Remark("no effect: everything this daemon serves is always there"),
    ),
    (
        "plugins.linux.runtime",
        Rule::Text(|config, value| config.legacy_runtime = value),
    ),
    (
        "plugins.linux.runtime_root",
        Rule::Text(|config, value| config.legacy_root = value),
    ),
    (
        "plugins.linux.shim_debug",
        Rule::Flag(|config, value| config.shim_debug = value),
    ),
    (
        "plugins.linux.shim",
        Rule::Remark(
            "no effect: io.containerd.runtime.v1.linux runs on containerd-shim-runc-v2; \
            name another shim by its runtime_type",
        ),
    ),
    (
        "plugins.linux.no_shim",
        Rule::Remark("no effect: every container has a shim"),
    ),
    ("plugins.cri.containerd.snapshotter", Rule::Remark(CRI)),
    ("plugins.cri.containerd.*", Rule::Remark(CRI_RUNTIME)),
    ("plugins.cri.systemd_cgroup", Rule::Remark(CRI_RUNTIME)),
    ("plugins.cri.*", Rule::Remark(CRI)),
    ("plugins.scheduler.*", Rule::Remark(COLLECTOR)),
    ("plugins.diff-service.*", Rule::Remark(COLLECTOR)),
    (
        "plugins.restart.*",
        Rule::Remark("no effect: restarts are the client's (Docker's restart policies work)"),
    ),
    (
        "plugins.opt.*",
        Rule::Remark("no effect: `ctr install` is not served"),
    ),
    (
        "plugins.cgroups.no_prometheus",
        Rule::Flag(|config, value| config.no_prometheus = value),
    ),
    (
        "plugins.*",
        Rule::Remark("no effect: this daemon has no such plugin"),
    ),
];

/// The full names of plugins (version 2 and later) that `RULES` has under other names.
const NAMES: &[(&str, &str)] = &[
    ("io.containerd.server.v1.grpc", "grpc"),
    ("io.containerd.server.v1.grpc-tcp", "grpc.tcp_server"),
    ("io.containerd.server.v1.ttrpc", "ttrpc"),
    ("io.containerd.server.v1.debug", "debug"),
    ("io.containerd.server.v1.metrics", "metrics"),
    ("io.containerd.runtime.v1.linux", "plugins.linux"),
    ("io.containerd.grpc.v1.cri", "plugins.cri"),
    ("io.containerd.cri.v1.runtime", "plugins.cri"),
    ("io.containerd.cri.v1.images", "plugins.cri"),
    ("io.containerd.gc.v1.scheduler", "plugins.scheduler"),
    (
        "io.containerd.service.v1.diff-service",
        "plugins.diff-service",
    ),
    ("io.containerd.internal.v1.restart", "plugins.restart"),
    ("io.containerd.internal.v1.opt", "plugins.opt"),
    ("io.containerd.monitor.v1.cgroups", "plugins.cgroups"),
];

struct Reader<'a> {
    file: &'a Path,
    text: &'a str,
    config: &'a mut Config,
    remarks: &'a mut Vec<Remark>,
    imports: Vec<String>,
}

/// Applies the file `path` with the contents `text` to `config`, adds remarks, and answers which
/// files it imports, as they are written there.
///
/// # Errors
/// The remark for which the file is refused; `config` is to be thrown away then.
pub(super) fn apply(
    path: &Path,
    text: &str,
    config: &mut Config,
    remarks: &mut Vec<Remark>,
) -> Result<Vec<String>, Remark> {
    let mut reader = Reader {
        file: path,
        text,
        config,
        remarks,
        imports: Vec::new(),
    };
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        reader.remark(at, error.message().to_owned())
    })?;
    reader.version(table.get_ref())?;
    reader.table(&[], table.get_ref())?;
    Ok(reader.imports)
}

impl Reader<'_> {
    fn remark(&self, at: usize, text: String) -> Remark {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        Remark {
            file: self.file.to_owned(),
            line,
            text,
        }
    }

    fn version(&self, table: &DeTable<'_>) -> Result<(), Remark> {
        let Some(version) = table.get("version") else {
            return Ok(());
        };
        let known = number(version.get_ref()).is_some_and(|version| (1..=4).contains(&version));
        if known {
            return Ok(());
        }
        let text = "version: must be 1, 2, 3 or 4".to_owned();
        Err(self.remark(version.span().start, text))
    }

    fn table(&mut self, path: &[&str], table: &DeTable<'_>) -> Result<(), Remark> {
        // In the order of the file, so that remarks are too.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let name: &str = key.get_ref();
            let mut path = path.to_vec();
            path.push(name);
            match value.get_ref() {
                DeValue::Table(inner) => self.table(&path, inner)?,
                value => self.entry(&path, key.span().start, value)?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &[&str], at: usize, value: &DeValue<'_>) -> Result<(), Remark> {
        let written = path.join(".");
        let name = match path {
            ["plugins", plugin, rest @ ..] => {
                let named = NAMES.iter().find(|(full, _)| full == plugin);
                named.map(|(_, short)| format!("{short}.{}", rest.join(".")))
            }
            _ => None,
        };
        let name = name.as_deref().unwrap_or(&written);
        let rule = RULES.iter().find(|(key, _)| match key.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => *key == name,
        });
        let wrong = |kind: &str| format!("{written}: must be {kind}");
        match rule.map(|(_, rule)| rule) {
            Some(Rule::Text(set)) => match value.as_str() {
                // An empty value is one that is not set.
                Some("") => {}
                Some(value) => set(self.config, value.to_owned()),
                None => return Err(self.remark(at, wrong("a text"))),
            },
            Some(Rule::Number(set)) => {
                match number(value).and_then(|value| u32::try_from(value).ok()) {
                    Some(value) => set(self.config, value),
                    None => return Err(self.remark(at, wrong("a number from 0 on"))),
                }
            }
            Some(Rule::Signed(set)) => {
                match number(value).and_then(|value| i32::try_from(value).ok()) {
                    Some(value) => set(self.config, value),
                    None => return Err(self.remark(at, wrong("a number"))),
                }
            }
            Some(Rule::Flag(set)) => match value.as_bool() {
                Some(value) => set(self.config, value),
                None => return Err(self.remark(at, wrong("true or false"))),
            },
            Some(Rule::Known) if written == "imports" => {
                let files = value
                    .as_array()
                    .ok_or_else(|| self.remark(at, wrong("a list")))?;
                let texts = files.iter().filter_map(|file| file.get_ref().as_str());
                self.imports = texts.map(str::to_owned).collect();
            }
            Some(Rule::Known) => {}
            Some(Rule::Remark(text)) => {
                let remark = self.remark(at, format!("{written}: {text}"));
                self.remarks.push(remark);
            }
            None => {
                let remark = self.remark(at, format!("{written}: no such key; see a default file"));
                self.remarks.push(remark);
            }
        }
        Ok(())
    }
}

fn number(value: &DeValue<'_>) -> Option<i64> {
    let value = value.as_integer()?;
    i64::from_str_radix(value.as_str(), value.radix()).ok()
}
