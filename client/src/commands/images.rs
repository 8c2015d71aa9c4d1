//! `wherry images`: which images there are.

use std::time::SystemTime;

use clap::Args;
use core_api::images::Image;
use serde_json::{Value, json};

use super::tell;
use crate::cli::Format;
use crate::connection::Connection;
use crate::error::{Error, Result};
use crate::image::summary::{self, Summary};
use crate::image::{digest, progress, record};
use crate::output::{self, Cell, Colour};
use crate::time;

/// List images
#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Only their names
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
    /// How to write them
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Images; without a tag, all of that name [default: all]
    #[arg(value_name = "NAME")]
    names: Vec<String>,
}

impl Images {
    /// Lists them.
    ///
    /// # Errors
    /// One that was named is not there, or the daemon's refusal.
    pub(crate) async fn execute(self, connection: &Connection) -> Result<()> {
        let mut images = record::list(connection, &[]).await?;
        let mut all = Ok(());
        if !self.names.is_empty() {
            for name in &self.names {
                if !images.iter().any(|image| is_meant(name, &image.name)) {
                    tell(&mut all, Err(Error::said(format!("{name}: no such image"))));
                }
            }
            images.retain(|image| self.names.iter().any(|name| is_meant(name, &image.name)));
        }
        if self.quiet {
            images
                .iter()
                .try_for_each(|image| output::say(&image.name))?;
            return all;
        }
        let mut rows = Vec::new();
        for image in images {
            let summary = match record::target(&image) {
                Ok(target) => summary::of(connection, &target).await,
                Err(error) => Summary {
                    fault: Some(error.to_string()),
                    ..Summary::default()
                },
            };
            rows.push((image, summary));
        }
        if self.format == Format::Json {
            let rows: Vec<Value> = rows
                .iter()
                .map(|(image, summary)| json(image, summary))
                .collect();
            output::json(&Value::Array(rows), false)?;
        } else {
            let now = SystemTime::now();
            let cells: Vec<_> = rows
                .iter()
                .map(|(image, summary)| cells(image, summary, now))
                .collect();
            output::table(&["NAME", "DIGEST", "PLATFORMS", "SIZE", "CREATED"], &cells)?;
        }
        all
    }
}

/// Whether a name as it was typed means an image: its whole name, or, without a tag, all its tags.
fn is_meant(typed: &str, name: &str) -> bool {
    let Ok(whole) = record::normalise(typed) else {
        return typed == name;
    };
    if typed == name || whole == name {
        return true;
    }
    // What was typed without a tag was given one.
    let untagged = whole
        .strip_suffix(":latest")
        .filter(|_| !typed.ends_with(":latest"));
    let rest = untagged.and_then(|untagged| name.strip_prefix(untagged));
    rest.is_some_and(|rest| rest.starts_with([':', '@']))
}

fn digest(image: &Image) -> &str {
    image
        .target
        .as_ref()
        .map_or("", |target| target.digest.as_str())
}

fn cells(image: &Image, summary: &Summary, now: SystemTime) -> Vec<Cell> {
    let platforms = match summary.platforms.as_slice() {
        [] => "-".to_owned(),
        platforms => platforms.join(","),
    };
    let size = progress::bytes(summary.size);
    vec![
        image.name.as_str().into(),
        digest::short(digest(image)).into(),
        match &summary.fault {
            None => platforms.into(),
            Some(_) => Cell::painted("incomplete".to_owned(), Colour::Red),
        },
        size.into(),
        time::age(image.created_at.as_ref(), now).into(),
    ]
}

fn json(image: &Image, summary: &Summary) -> Value {
    json!({
        "name": image.name,
        "digest": digest(image),
        "media_type": image.target.as_ref().map(|target| &target.media_type),
        "platforms": summary.platforms,
        "size": summary.size,
        "fault": summary.fault,
        "labels": image.labels,
        "created_at": time::rfc3339(image.created_at.as_ref()),
        "updated_at": time::rfc3339(image.updated_at.as_ref()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_a_tag_means_all_tags() {
        let busybox = "docker.io/library/busybox:1";
        for typed in ["busybox", "busybox:1", "docker.io/library/busybox", busybox] {
            assert!(is_meant(typed, busybox), "{typed}");
        }
        for typed in ["busybox:latest", "busy", "box", "a b", ""] {
            assert!(!is_meant(typed, busybox), "{typed}");
        }
        assert!(is_meant("<none>", "<none>"));
    }
}
