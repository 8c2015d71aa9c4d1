//! From entries to the configuration: each goes where its row of [`keys`] says.

use super::entries::{Entry, name};
use super::keys::{self, Key, Rule};
use super::problem::Problem;
use super::sources::Sources;
use super::{Config, spelling};

/// Applies everything that was read to `config` and answers what is to be said about it, in the
/// order of the files and their lines. When there is an error in it, `config` is to be thrown
/// away.
pub(super) fn apply(sources: &Sources, config: &mut Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    for entry in sources.entries.values() {
        problems.extend(apply_one(entry, config));
    }
    config
        .cri
        .settle((&config.legacy_runtime, &config.legacy_root));
    problems.extend(across_keys(sources, config));
    problems.sort_by_key(|problem| {
        let file = sources.files.iter().position(|file| *file == problem.file);
        (file, problem.line)
    });
    problems
}

fn apply_one(entry: &Entry, config: &mut Config) -> Option<Problem> {
    let is_empty_table = entry.value.as_table().is_some_and(toml::Table::is_empty);
    let has_rows = |key: &Key| matches!(key.rule, Rule::Force(_)) && key.is_within(&entry.path);
    if keys::all().any(has_rows) {
        // A table without keys says nothing; a value in its place is a mistake.
        let text = format!("{}: must be a table", entry.name());
        return (!is_empty_table).then(|| entry.error(text, "write it as a table: [name]"));
    }
    let row = keys::all().find_map(|key| key.fits(&entry.path).map(|stood_for| (key, stood_for)));
    let Some((key, stood_for)) = row else {
        return stranger(entry).filter(|problem| problem.is_error || !is_empty_table);
    };
    match key.rule {
        Rule::Reader => None,
        Rule::Force(place) => set(entry, place(config, stood_for)).err(),
        Rule::Renamed(place, remedy) => match set(entry, place(config, stood_for)) {
            Ok(()) => Some(entry.warning(format!("{}: is outdated", entry.name()), remedy)),
            Err(problem) => Some(problem),
        },
        Rule::Vain(..) if is_empty_table => None,
        Rule::Vain(why, remedy) => {
            Some(entry.warning(format!("{}: no effect: {why}", entry.name()), remedy))
        }
    }
}

fn set(entry: &Entry, slot: super::slot::Slot<'_>) -> Result<(), Problem> {
    slot.set(&entry.value).map_err(|kind| {
        let (name, found) = (entry.name(), &entry.value);
        entry.error(
            format!("{name}: {found} is not {kind}"),
            "correct the value",
        )
    })
}

/// What is to be said of a key that no row fits.
fn stranger(entry: &Entry) -> Option<Problem> {
    let around =
        keys::all().find(|key| matches!(key.rule, Rule::Force(_)) && key.is_around(&entry.path));
    if let Some(key) = around {
        let text = format!("{}: is no table", name(key.path));
        return Some(entry.error(text, "give it a plain value"));
    }
    let remedy = match nearest(&entry.path) {
        Some(known) => format!("did you mean {known}?"),
        None => "leave it out, or see `config default` for the keys there are".to_owned(),
    };
    Some(entry.warning(format!("{}: no such key", entry.name()), &remedy))
}

/// The known key of the same table that `path` is at most two letters away from.
fn nearest(path: &[String]) -> Option<String> {
    let (last, table) = path.split_last()?;
    let in_table = |key: &&Key| {
        key.path.len() == path.len() && key.path.iter().zip(table).all(|(a, b)| a == b)
    };
    keys::all()
        .filter(in_table)
        .map(|key| (distance(last, key.path[table.len()]), key))
        .filter(|(distance, _)| *distance <= 2)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, key)| name(key.path))
}

/// How many letters must be changed, left out or added to get from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (at, a) in from.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = at + 1;
        for (column, b) in to.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

/// What no key can say for itself.
fn across_keys(sources: &Sources, config: &Config) -> Vec<Problem> {
    let entry = |key: &str| sources.entries.get(&vec![key.to_owned()]);
    let mut problems = only_default(sources, config);
    if config.root == config.state
        && let Some(entry) = entry("state").or_else(|| entry("root"))
    {
        let text = "root and state are the same folder";
        problems.push(entry.error(text, "give each its own"));
    }
    if let Some(entry) = entry("required_plugins") {
        for name in &config.required_plugins {
            if config.disabled_plugins.contains(name) {
                let text = format!("required_plugins: {name} is disabled as well");
                problems.push(entry.error(text, "take it out of one of the lists"));
            }
        }
    }
    for (name, runtime) in &config.cri.named {
        let at = |key: &str| {
            let path = in_cri(&["runtimes", name, "options", key]);
            sources.entries.get(&path)
        };
        for key in runtime.unknown_options() {
            if let Some(entry) = at(key) {
                let text = format!("{}: no effect: runc has no such option", entry.name());
                problems.push(entry.warning(text, "leave it out"));
            }
        }
        if let Err(error) = runtime.shim_options() {
            let key = error.split(':').next().unwrap_or_default();
            if let Some(entry) = at(key) {
                problems.push(entry.error(format!("options: {error}"), "correct the value"));
            }
        }
    }
    let name = &config.cri.default_runtime;
    if let Some(entry) = sources.entries.get(&in_cri(&["default_runtime_name"]))
        && !config.cri.named.contains_key(name)
    {
        let text = format!("{}: there is no runtime {name:?}", entry.name());
        problems.push(entry.warning(text, "name one of [runtimes]"));
    }
    problems
}

/// Values that are read and that only their default has an effect of.
fn only_default(sources: &Sources, config: &Config) -> Vec<Problem> {
    let default = Config::default();
    let rows = [
        (
            "io.containerd.runtime.v2.task",
            "platforms",
            config.platforms == default.platforms,
            "tasks are those of this machine's platform",
        ),
        (
            "io.containerd.service.v1.diff-service",
            "default",
            config.differs == default.differs,
            "layers are made by walking",
        ),
    ];
    let mut problems = Vec::new();
    for (plugin, key, is_default, why) in rows {
        let path = [spelling::PLUGINS, plugin, key].map(str::to_owned);
        if let (Some(entry), false) = (sources.entries.get(path.as_slice()), is_default) {
            let text = format!("{}: {} has no effect: {why}", entry.name(), entry.value);
            problems.push(entry.warning(text, "leave it out"));
        }
    }
    problems
}

fn in_cri(path: &[&str]) -> Vec<String> {
    let table = [spelling::PLUGINS, spelling::CRI, "containerd"];
    let all = table.iter().chain(path);
    all.map(|part| (*part).to_owned()).collect()
}
