//! `wherry df`: what images take on the disk, in all namespaces, and what could be freed.

use std::collections::BTreeMap;
use std::time::SystemTime;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::Format;
use crate::connection::Connection;
use crate::error::Result;
use crate::image::inventory::{self, Inventory, Thing};
use crate::image::sizes::{self, Sizes};
use crate::image::{keepers, progress};
use crate::output::{self, Cell};

/// Show what images take on the disk, in all namespaces
///
/// Blobs are shared: the last line counts each once. What could be freed is what `prune --all`
/// would free.
#[derive(Debug, Args)]
pub(crate) struct Df {
    /// How to write it
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

/// What one namespace takes, in bytes and numbers.
#[derive(Debug, Default)]
struct Row {
    name: String,
    images: usize,
    blobs: usize,
    blob_bytes: u64,
    snapshots: usize,
    snapshot_bytes: u64,
    uploads: usize,
    upload_bytes: u64,
    reclaimable: u64,
}

impl Df {
    /// Shows it.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub(crate) async fn execute(self, connection: &Connection) -> Result<()> {
        let mut rows = Vec::new();
        // Each blob with whether some namespace needs it.
        let mut blobs: BTreeMap<String, (u64, bool)> = BTreeMap::new();
        let mut total = Row {
            name: "(all)".to_owned(),
            ..Row::default()
        };
        for name in inventory::namespaces(connection).await? {
            let connection = connection.for_namespace(&name)?;
            let row = row(&connection, name, &mut blobs, &mut total).await?;
            rows.push(row);
        }
        total.blobs = blobs.len();
        for (size, is_needed) in blobs.into_values() {
            total.blob_bytes = total.blob_bytes.saturating_add(size);
            if !is_needed {
                total.reclaimable = total.reclaimable.saturating_add(size);
            }
        }
        if self.format == Format::Json {
            let rows: Vec<Value> = rows.iter().map(Row::json).collect();
            return output::json(&json!({ "namespaces": rows, "all": total.json() }), false);
        }
        rows.push(total);
        let cells: Vec<Vec<Cell>> = rows.iter().map(Row::cells).collect();
        let heading = [
            "NAMESPACE",
            "IMAGES",
            "BLOBS",
            "SNAPSHOTS",
            "UPLOADS",
            "RECLAIMABLE",
        ];
        output::table(&heading, &cells)
    }
}

/// Looks at a namespace; adds to the sum of all what is its own.
async fn row(
    connection: &Connection,
    name: String,
    blobs: &mut BTreeMap<String, (u64, bool)>,
    total: &mut Row,
) -> Result<Row> {
    let inventory = Inventory::take(connection).await?;
    let keepers = keepers::of(&inventory);
    let unneeded = inventory.unneeded(|image| !keepers.keep(image), SystemTime::now());
    let unneeded = Sizes::of(connection, &inventory, unneeded).await;
    let positive = |size: i64| u64::try_from(size).unwrap_or_default();
    let mut row = Row {
        name,
        images: inventory.images.len(),
        blobs: inventory.blobs.len(),
        snapshots: inventory.snapshots.len(),
        uploads: inventory.uploads.len(),
        reclaimable: unneeded.sum(),
        ..Row::default()
    };
    for (digest, info) in &inventory.blobs {
        row.blob_bytes = row.blob_bytes.saturating_add(positive(info.size));
        let known = blobs
            .entry(digest.clone())
            .or_insert_with(|| (positive(info.size), false));
        known.1 |= !unneeded.holds(&Thing::Blob(digest.clone()));
    }
    for (snapshotter, key) in inventory.snapshots.keys() {
        let size = sizes::snapshot_size(connection, snapshotter, key).await;
        row.snapshot_bytes = row.snapshot_bytes.saturating_add(size);
    }
    for upload in &inventory.uploads {
        row.upload_bytes = row.upload_bytes.saturating_add(positive(upload.offset));
    }
    total.images += row.images;
    total.snapshots += row.snapshots;
    total.uploads += row.uploads;
    total.snapshot_bytes = total.snapshot_bytes.saturating_add(row.snapshot_bytes);
    total.upload_bytes = total.upload_bytes.saturating_add(row.upload_bytes);
    total.reclaimable = total.reclaimable.saturating_add(unneeded.snapshots());
    Ok(row)
}

impl Row {
    fn cells(&self) -> Vec<Cell> {
        let counted = |count: usize, bytes| format!("{count} ({})", progress::bytes(bytes));
        vec![
            self.name.as_str().into(),
            self.images.to_string().into(),
            counted(self.blobs, self.blob_bytes).into(),
            counted(self.snapshots, self.snapshot_bytes).into(),
            counted(self.uploads, self.upload_bytes).into(),
            progress::bytes(self.reclaimable).into(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "namespace": self.name,
            "images": self.images,
            "blobs": self.blobs,
            "blob_bytes": self.blob_bytes,
            "snapshots": self.snapshots,
            "snapshot_bytes": self.snapshot_bytes,
            "uploads": self.uploads,
            "upload_bytes": self.upload_bytes,
            "reclaimable_bytes": self.reclaimable,
        })
    }
}
