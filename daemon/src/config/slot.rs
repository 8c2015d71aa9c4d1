//! Where the value of a key lives in the [`Config`](super::Config), and which values it may have:
//! one description for reading it from a file and for writing it to one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use toml::{Table, Value};

use super::duration;

/// The place of one value.
pub(super) enum Slot<'c> {
    /// An absolute path; an empty text leaves it as it is.
    Path(&'c mut PathBuf),
    /// An absolute path, or empty for none.
    MaybePath(&'c mut PathBuf),
    /// Any text; an empty one leaves it as it is.
    Text(&'c mut String),
    /// One of these words; an empty text leaves it as it is.
    Word(&'c mut String, &'static [&'static str]),
    /// A number from 0 on.
    Number(&'c mut u32),
    /// A number within these bounds.
    Bounded(&'c mut i32, i32, i32),
    /// A number of bytes; 0 leaves it as it is.
    Bytes(&'c mut usize),
    /// A share of a whole, up to a half.
    Share(&'c mut f64),
    /// Yes or no.
    Flag(&'c mut bool),
    /// A span of time in Go's words.
    Span(&'c mut Duration),
    /// A list of texts.
    List(&'c mut Vec<String>),
    /// A path under a name; an empty text leaves it out.
    Entry(&'c mut BTreeMap<String, PathBuf>, String),
    /// Whatever TOML can say, under this path.
    Tree(&'c mut Table, Vec<String>),
}

impl Slot<'_> {
    /// Takes a value from a file.
    ///
    /// # Errors
    /// What the value must be instead: `a text`.
    pub(super) fn set(self, value: &Value) -> Result<(), String> {
        let text = || value.as_str().ok_or("a text");
        let path = || match value.as_str() {
            Some(text) if text.is_empty() || text.starts_with('/') => Ok(text),
            _ => Err("an absolute path"),
        };
        match self {
            Slot::Path(place) => {
                if !path()?.is_empty() {
                    *place = path()?.into();
                }
            }
            Slot::MaybePath(place) => *place = path()?.into(),
            Slot::Text(place) => {
                if !text()?.is_empty() {
                    text()?.clone_into(place);
                }
            }
            Slot::Word(place, words) => match text() {
                Ok("") => {}
                Ok(word) if words.contains(&word) => word.clone_into(place),
                _ => return Err(format!("one of {}", words.join(", "))),
            },
            Slot::Number(place) => {
                let number = value
                    .as_integer()
                    .and_then(|value| u32::try_from(value).ok());
                *place = number.ok_or("a number from 0 on")?;
            }
            Slot::Bounded(place, least, most) => {
                let number = value
                    .as_integer()
                    .and_then(|value| i32::try_from(value).ok());
                *place = number
                    .filter(|number| (least..=most).contains(number))
                    .ok_or_else(|| format!("a number from {least} to {most}"))?;
            }
            Slot::Bytes(place) => {
                let number = value
                    .as_integer()
                    .and_then(|value| i32::try_from(value).ok());
                match number.and_then(|number| usize::try_from(number).ok()) {
                    Some(0) => {}
                    Some(number) => *place = number,
                    None => return Err("a number of bytes below 2^31".to_owned()),
                }
            }
            Slot::Share(place) => {
                let number = match value {
                    Value::Float(number) => Some(*number),
                    Value::Integer(number) => i32::try_from(*number).ok().map(f64::from),
                    _ => None,
                };
                *place = number
                    .filter(|number| (0.0..=0.5).contains(number))
                    .ok_or("a number from 0.0 to 0.5")?;
            }
            Slot::Flag(place) => *place = value.as_bool().ok_or("true or false")?,
            Slot::Span(place) => {
                *place = value
                    .as_str()
                    .and_then(duration::parse)
                    .ok_or("a span of time, such as \"2s\"")?;
            }
            Slot::List(place) => {
                let values = value.as_array().ok_or("a list of texts")?;
                let texts = values.iter().map(|value| value.as_str().map(str::to_owned));
                *place = texts.collect::<Option<_>>().ok_or("a list of texts")?;
            }
            Slot::Entry(map, name) => {
                if !path()?.is_empty() {
                    map.insert(name, path()?.into());
                }
            }
            Slot::Tree(table, path) => plant(table, &path, value.clone()),
        }
        Ok(())
    }

    /// The value for a file.
    pub(super) fn get(self) -> Option<Value> {
        let path = |path: &PathBuf| Value::String(path.to_string_lossy().into_owned());
        Some(match self {
            Slot::Path(place) | Slot::MaybePath(place) => path(place),
            Slot::Text(place) | Slot::Word(place, _) => Value::String(place.clone()),
            Slot::Number(place) => Value::Integer((*place).into()),
            Slot::Bounded(place, ..) => Value::Integer((*place).into()),
            Slot::Bytes(place) => Value::Integer(i64::try_from(*place).unwrap_or(i64::MAX)),
            Slot::Share(place) => Value::Float(*place),
            Slot::Flag(place) => Value::Boolean(*place),
            Slot::Span(place) => Value::String(duration::render(*place)),
            Slot::List(place) => Value::Array(place.iter().cloned().map(Value::String).collect()),
            Slot::Entry(map, name) => path(map.get(&name)?),
            Slot::Tree(table, _) => Value::Table(table.clone()),
        })
    }
}

/// Puts a value into a tree of tables; what stands in the way is replaced.
pub(super) fn plant<S: AsRef<str>>(table: &mut Table, path: &[S], value: Value) {
    match path {
        [] => {}
        [key] => {
            table.insert(key.as_ref().to_owned(), value);
        }
        [key, rest @ ..] => {
            let inner = table
                .entry(key.as_ref())
                .or_insert_with(|| Value::Table(Table::new()));
            if !inner.is_table() {
                *inner = Value::Table(Table::new());
            }
            if let Value::Table(inner) = inner {
                plant(inner, rest, value);
            }
        }
    }
}
