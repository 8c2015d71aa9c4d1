//! Writing a configuration: what is in force, or a file of another version in the words of the
//! one that is written.

use std::path::Path;

use toml::{Table, Value};

use super::Config;
use super::entries::Entry;
use super::keys::{self, Rule};
use super::problem::Problem;
use super::slot::plant;
use super::sources::{self, Sources};
use super::spelling::{CRI, PLUGINS, WRITTEN};

/// Where the runtimes are.
const RUNTIMES: [&str; 4] = [PLUGINS, CRI, "containerd", "runtimes"];

/// Everything that is in force.
pub(super) fn dump(config: &Config) -> String {
    let mut config = config.clone();
    let mut table = Table::new();
    plant(&mut table, &["version"], Value::Integer(WRITTEN));
    for key in keys::all() {
        let Rule::Force(place) = key.rule else {
            continue;
        };
        // Rows with wildcards are those of the runtimes, which follow by name.
        if key.path.iter().any(|part| part.starts_with('*')) {
            continue;
        }
        if let Some(value) = place(&mut config, Vec::new()).get() {
            plant(&mut table, key.path, value);
        }
    }
    runtimes(&config, &mut table);
    render(&table)
}

fn runtimes(config: &Config, table: &mut Table) {
    for (name, runtime) in &config.cri.named {
        let mut put = |key: &str, value: Value| {
            let path: Vec<&str> = RUNTIMES.into_iter().chain([name.as_str(), key]).collect();
            plant(table, &path, value);
        };
        put("runtime_type", Value::String(runtime.runtime_type.clone()));
        let path = runtime.runtime_path.to_string_lossy().into_owned();
        put("runtime_path", Value::String(path));
        put("options", Value::Table(runtime.options.clone()));
    }
}

fn render(table: &Table) -> String {
    // What is in a table of TOML can be written as TOML.
    toml::to_string(table).unwrap_or_default()
}

/// The main file `file` in the words of the version that is written, with every key that it has:
/// also those without effect here, which another daemon may understand. Imports stay imports.
/// What the old version said in other ways, such as the default runtime, is said in today's.
///
/// # Errors
/// As [`Config::read`]; the warnings are of no use here and left out.
pub fn migrate(file: &Path) -> Result<String, Vec<Problem>> {
    let sources = sources::read(file, false)?;
    let mut config = Config::default();
    let problems = super::apply::apply(&sources, &mut config);
    if problems.iter().any(|problem| problem.is_error) {
        return Err(problems);
    }
    let mut table = Table::new();
    for entry in sources.entries.values().filter(|entry| !is_renamed(entry)) {
        plant(&mut table, &entry.path, entry.value.clone());
    }
    plant(&mut table, &["version"], Value::Integer(WRITTEN));
    if names_runtimes(&sources) {
        runtimes(&config, &mut table);
        let name = Value::String(config.cri.default_runtime.clone());
        let path = [PLUGINS, CRI, "containerd", "default_runtime_name"];
        plant(&mut table, &path, name);
    }
    Ok(render(&table))
}

/// Whether a key is said in another way today.
fn is_renamed(entry: &Entry) -> bool {
    keys::all()
        .find(|key| key.fits(&entry.path).is_some())
        .is_some_and(|key| matches!(key.rule, Rule::Renamed(..)))
}

fn names_runtimes(sources: &Sources) -> bool {
    let about = |entry: &&Entry| {
        let path: Vec<&str> = entry.path.iter().map(String::as_str).collect();
        is_renamed(entry) || path.starts_with(&RUNTIMES)
    };
    sources.entries.values().any(|entry| about(&entry))
}
