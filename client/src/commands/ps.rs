//! `wherry ps`: which containers there are, and what they do.

use std::collections::BTreeMap;
use std::time::SystemTime;

use clap::Args;
use core_api::containers::{Container, ListContainersRequest};
use core_api::task_types::{Process, Status};
use core_api::tasks::ListTasksRequest;
use serde_json::{Value, json};

use crate::cli::Format;
use crate::connection::Connection;
use crate::error::{Context, Result};
use crate::output::{self, Cell, Colour};
use crate::time;

/// Longest command that a table shows.
const COMMAND_WIDTH: usize = 40;

/// List containers
#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Only their names
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
    /// How to write them
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// A container's record, its task, or both: either may be there without the other.
#[derive(Debug, Default)]
struct Row {
    record: Option<Container>,
    task: Option<Process>,
}

impl Ps {
    /// Lists them.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub(crate) async fn execute(self, connection: &Connection) -> Result<()> {
        let mut rows = rows(connection).await?;
        rows.retain(|_, row| self.all || row.is_live());
        if self.quiet {
            return rows.keys().try_for_each(output::say);
        }
        if self.format == Format::Json {
            let all: Vec<Value> = rows.iter().map(|(id, row)| row.json(id)).collect();
            return output::json(&Value::Array(all), false);
        }
        let now = SystemTime::now();
        let cells: Vec<Vec<Cell>> = rows.iter().map(|(id, row)| row.cells(id, now)).collect();
        output::table(
            &["ID", "PID", "STATUS", "AGE", "RUNTIME", "COMMAND"],
            &cells,
        )
    }
}

async fn rows(connection: &Connection) -> Result<BTreeMap<String, Row>> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let request = ListContainersRequest::default();
    let records = connection.containers().list(request).await;
    for record in records
        .about("cannot list the containers")?
        .into_inner()
        .containers
    {
        let row = rows.entry(record.id.clone()).or_default();
        row.record = Some(record);
    }
    let tasks = connection.tasks().list(ListTasksRequest::default()).await;
    for task in tasks.about("cannot list the tasks")?.into_inner().tasks {
        let id = if task.container_id.is_empty() {
            task.id.clone()
        } else {
            task.container_id.clone()
        };
        rows.entry(id).or_default().task = Some(task);
    }
    Ok(rows)
}

impl Row {
    fn is_live(&self) -> bool {
        let status = self.task.as_ref().map(Process::status);
        status.is_some_and(|status| !matches!(status, Status::Stopped | Status::Created))
    }

    /// What it does, in one word, and its exit status when it has ended.
    fn status(&self) -> (&'static str, Option<u32>) {
        let Some(task) = &self.task else {
            return ("not running", None);
        };
        match task.status() {
            Status::Unknown => ("unknown", None),
            Status::Created => ("created", None),
            Status::Running => ("running", None),
            Status::Stopped => ("stopped", Some(task.exit_status)),
            Status::Paused => ("paused", None),
            Status::Pausing => ("pausing", None),
        }
    }

    fn runtime(&self) -> &str {
        let runtime = self
            .record
            .as_ref()
            .and_then(|record| record.runtime.as_ref());
        runtime.map_or("", |runtime| runtime.name.as_str())
    }

    fn command(&self) -> Vec<String> {
        let spec = self.record.as_ref().and_then(|record| record.spec.as_ref());
        let spec = spec.and_then(|spec| serde_json::from_slice::<Value>(&spec.value).ok());
        let words = spec
            .as_ref()
            .and_then(|spec| spec["process"]["args"].as_array());
        let words = words.into_iter().flatten().filter_map(Value::as_str);
        words.map(str::to_owned).collect()
    }

    fn cells(&self, id: &str, now: SystemTime) -> Vec<Cell> {
        let (word, code) = self.status();
        let text = match code {
            Some(code) => format!("{word} ({code})"),
            None => word.to_owned(),
        };
        let colour = match word {
            "running" => Colour::Green,
            "paused" | "pausing" => Colour::Yellow,
            _ => Colour::Dim,
        };
        let pid = self.task.as_ref().map_or(0, |task| task.pid);
        let created = self
            .record
            .as_ref()
            .and_then(|record| record.created_at.as_ref());
        let or_dash = |text: &str| Cell::from(if text.is_empty() { "-" } else { text });
        vec![
            Cell::from(id),
            or_dash(&if pid == 0 {
                String::new()
            } else {
                pid.to_string()
            }),
            Cell::painted(text, colour),
            Cell::from(time::age(created, now)),
            or_dash(self.runtime()),
            or_dash(&shortened(&self.command().join(" "))),
        ]
    }

    fn json(&self, id: &str) -> Value {
        let (word, code) = self.status();
        let record = self.record.as_ref();
        json!({
            "id": id,
            "pid": self.task.as_ref().map(|task| task.pid).filter(|pid| *pid != 0),
            "status": word,
            "exit_status": code,
            "created_at": time::rfc3339(record.and_then(|record| record.created_at.as_ref())),
            "runtime": self.runtime(),
            "image": record.map_or("", |record| record.image.as_str()),
            "labels": record.map(|record| record.labels.clone()).unwrap_or_default(),
            "command": self.command(),
        })
    }
}

/// A command in one short line: it may hold any bytes, a terminal's commands too.
fn shortened(command: &str) -> String {
    let mut short: String = command
        .chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(COMMAND_WIDTH)
        .collect();
    if command.chars().nth(COMMAND_WIDTH).is_some() {
        short.pop();
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_cut_and_cannot_write_to_the_terminal() {
        assert_eq!(shortened("a\x1b[31m\nb"), "a [31m b");
        let short = shortened(&"ä".repeat(100));
        assert_eq!(short.chars().count(), COMMAND_WIDTH);
        assert!(short.ends_with('…'));
    }

    #[test]
    fn a_task_without_a_record_is_shown() {
        let task = Process {
            status: Status::Stopped.into(),
            exit_status: 3,
            ..Process::default()
        };
        let row = Row {
            record: None,
            task: Some(task),
        };
        assert!(!row.is_live());
        assert_eq!(row.json("x")["exit_status"], 3);
        assert_eq!(row.cells("x", SystemTime::now()).len(), 6);
    }
}
