//! The tables as they are, for `wherryd verify`: rows without their rules, and changes to them.

use redb::{ReadableTable, TableDefinition};
use tonic::Status;

use super::content::{BLOBS, CONTENT};
use super::images::IMAGES;
use super::snapshots::{CHILDREN, NUMBERS, SNAPSHOTS};
use super::{CONTAINERS, LEASE_RESOURCES, LEASES, NAMESPACES, Store};

/// A table, by what its rows are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the table of its name")]
pub enum Table {
    Namespaces,
    Containers,
    Leases,
    Resources,
    Content,
    Blobs,
    Images,
    Snapshots,
    Children,
    Numbers,
}

impl Table {
    fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        match self {
            Self::Namespaces => NAMESPACES,
            Self::Containers => CONTAINERS,
            Self::Leases => LEASES,
            Self::Resources => LEASE_RESOURCES,
            Self::Content => CONTENT,
            Self::Blobs => BLOBS,
            Self::Images => IMAGES,
            Self::Snapshots => SNAPSHOTS,
            Self::Children => CHILDREN,
            Self::Numbers => NUMBERS,
        }
    }

    /// What an operator is told of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Namespaces => "namespace",
            Self::Containers => "container",
            Self::Leases => "lease",
            Self::Resources => "lease resource",
            Self::Content => "content",
            Self::Blobs => "blob",
            Self::Images => "image",
            Self::Snapshots => "snapshot",
            Self::Children => "child of a snapshot",
            Self::Numbers => "snapshot number",
        }
    }
}

/// One change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Where.
    pub table: Table,
    /// The key as it is in the table: parts with a NUL between them.
    pub key: String,
    /// The new value; `None` removes the row.
    pub value: Option<Vec<u8>>,
}

impl Edit {
    /// Removes a row.
    pub fn remove(table: Table, key: impl Into<String>) -> Self {
        Self {
            table,
            key: key.into(),
            value: None,
        }
    }

    /// Puts a row.
    pub fn put(table: Table, key: impl Into<String>, value: Vec<u8>) -> Self {
        Self {
            table,
            key: key.into(),
            value: Some(value),
        }
    }
}

impl Store {
    /// Every row of a table: keys as they are, values encoded.
    ///
    /// # Errors
    /// Those of the database.
    pub fn rows(&self, table: Table) -> Result<Vec<(String, Vec<u8>)>, Status> {
        self.read(|transaction| {
            let mut rows = Vec::new();
            for entry in transaction.open_table(table.definition())?.iter()? {
                let (key, value) = entry?;
                rows.push((key.value().to_owned(), value.value().to_vec()));
            }
            Ok(rows)
        })
    }

    /// Makes all of `edits` in one transaction, which is on disk when this returns. Blocks: for a
    /// process that serves nobody.
    ///
    /// # Errors
    /// Those of the database, and then nothing has changed.
    pub fn edit(&self, edits: Vec<Edit>) -> Result<(), Status> {
        self.0.write(move |transaction| {
            for Edit { table, key, value } in edits {
                let mut table = transaction.open_table(table.definition())?;
                match value {
                    Some(value) => table.insert(key.as_str(), value.as_slice())?,
                    None => table.remove(key.as_str())?,
                };
            }
            Ok(())
        })
    }
}
