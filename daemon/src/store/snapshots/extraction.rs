//! Snapshots that clients unpack layers into. They call them `extract-`, something of their own, a
//! space and the chain ID under which they will commit them (image-spec, config.md, "Layer
//! ChainID"); so it is known what an active snapshot is to become.

use core_api::snapshots::Kind;
use prost::Message;
use redb::ReadableTable;
use tonic::Status;

use super::record::{Record, Scope, Unpacked};
use super::{SNAPSHOTS, find, unknown};
use crate::content::digest::Digest;
use crate::store::{Failure, Store, decode};

/// What the key of every extraction begins with.
const EXTRACT: &str = "extract-";

/// An active snapshot that a layer is unpacked into.
#[derive(Debug, Clone)]
pub struct Extraction {
    /// Where it belongs.
    pub scope: Scope,
    /// Its key.
    pub key: String,
    /// The key that it will be committed under.
    pub chain: String,
    /// What is stored of it.
    pub record: Record,
}

/// The chain ID that a snapshot with this key is unpacked for.
fn chain_of(key: &str) -> Option<&str> {
    let (_, chain) = key.strip_prefix(EXTRACT)?.split_once(' ')?;
    Digest::parse(chain).ok().map(|_| chain)
}

/// The layer that is committed as the chain of `extraction`, if it is the one in `blob`.
fn unpacked(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    extraction: &Extraction,
    blob: &str,
) -> Result<Option<Unpacked>, Failure> {
    let found = find(table, &extraction.scope, &extraction.chain)?;
    Ok(found
        .filter(|found| found.kind() == Kind::Committed && found.parent == extraction.record.parent)
        .and_then(|found| found.unpacked)
        .filter(|unpacked| unpacked.blob == blob))
}

impl Store {
    /// The extraction whose folder has this number, if it is one.
    ///
    /// # Errors
    /// Those of the database.
    pub fn extraction(&self, scope: Scope, number: u64) -> Result<Option<Extraction>, Status> {
        self.read(move |transaction| {
            let table = transaction.open_table(SNAPSHOTS)?;
            let prefix = scope.key(EXTRACT);
            for entry in table.range(prefix.as_str()..)? {
                let (key, value) = entry?;
                if !key.value().starts_with(&prefix) {
                    break;
                }
                let record: Record = decode(value.value())?;
                if record.number != number || record.kind() != Kind::Active {
                    continue;
                }
                let key = key.value()[scope.key("").len()..].to_owned();
                return Ok(chain_of(&key).map(str::to_owned).map(|chain| Extraction {
                    scope,
                    key,
                    chain,
                    record,
                }));
            }
            Ok(None)
        })
    }

    /// What the layer in `blob` is, if what `extraction` is for was unpacked from it on the same
    /// parent and is committed.
    ///
    /// # Errors
    /// Those of the database.
    pub fn unpacked(
        &self,
        extraction: &Extraction,
        blob: &str,
    ) -> Result<Option<Unpacked>, Status> {
        self.read(|transaction| unpacked(&transaction.open_table(SNAPSHOTS)?, extraction, blob))
    }

    /// As [`Store::unpacked`], and if it is so, marks the extraction as hollow.
    ///
    /// # Errors
    /// `NotFound` when the extraction is gone; those of the database.
    pub async fn leave_hollow(
        &self,
        extraction: Extraction,
        blob: String,
    ) -> Result<Option<Unpacked>, Status> {
        self.write(move |transaction| {
            let mut table = transaction.open_table(SNAPSHOTS)?;
            let Some(known) = unpacked(&table, &extraction, &blob)? else {
                return Ok(None);
            };
            let mut record = still(&table, &extraction)?;
            record.hollow.clone_from(&extraction.chain);
            record.unpacked = Some(known.clone());
            let key = extraction.scope.key(&extraction.key);
            table.insert(key.as_str(), record.encode_to_vec().as_slice())?;
            Ok(Some(known))
        })
        .await
    }

    /// Takes note that a hollow extraction has the layer in `blob` now. It stays hollow if that is
    /// another than the one it lacks.
    ///
    /// # Errors
    /// `NotFound` when the extraction is gone; those of the database.
    pub async fn filled(&self, extraction: Extraction, blob: String) -> Result<(), Status> {
        self.write(move |transaction| {
            let mut table = transaction.open_table(SNAPSHOTS)?;
            let mut record = still(&table, &extraction)?;
            if record.unpacked.is_none_or(|lacks| lacks.blob != blob) {
                return Ok(());
            }
            record.hollow.clear();
            record.unpacked = None;
            let key = extraction.scope.key(&extraction.key);
            table.insert(key.as_str(), record.encode_to_vec().as_slice())?;
            Ok(())
        })
        .await
    }
}

/// The record of an extraction as it is now.
fn still(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    extraction: &Extraction,
) -> Result<Record, Failure> {
    find(table, &extraction.scope, &extraction.key)?
        .filter(|record| record.number == extraction.record.number)
        .ok_or_else(|| unknown(&extraction.key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_of_unpackers_tell_what_will_be() {
        let chain = format!("sha256:{}", "a".repeat(64));
        let key = format!("extract-123-Ab_c {chain}");
        assert_eq!(chain_of(&key), Some(chain.as_str()));
        for other in [
            chain.as_str(),
            "extract-1",
            "extract-1 sha256:a",
            "work extract-1 x",
            "",
        ] {
            assert_eq!(chain_of(other), None, "{other}");
        }
    }
}
