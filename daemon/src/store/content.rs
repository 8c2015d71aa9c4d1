//! Which blobs each namespace may see, and which blobs are on disk at all.

use std::borrow::Cow;
use std::time::SystemTime;

use core_api::content::Info;
use core_api::namespaces::Namespace;
use prost::Message;
use redb::{ReadableTable, TableDefinition, WriteTransaction};
use tonic::Status;

use super::{Failure, NAMESPACES, Store, decode, key, leases, list, namespaces};
use crate::content::digest::Digest;
use crate::filter::{Fields, Filters, in_map};
use crate::{ids, status};

/// Namespace and digest to what the namespace knows of the blob.
pub(super) const CONTENT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("content");
/// The digest of each blob that this daemon has put on disk to its size in bytes, eight bytes with
/// the lowest first. What is not here but on disk is another daemon's.
pub(super) const BLOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("blobs");

/// The label of a namespace whose blobs others may have, whatever the policy (containerd, #6660).
const SHAREABLE: &str = "containerd.io/namespace.shareable";

impl Fields for Info {
    fn field(&self, path: &[String]) -> Option<Cow<'_, str>> {
        match (path[0].as_str(), &path[1..]) {
            ("digest", []) => Some(self.digest.as_str().into()),
            ("labels", rest) => in_map(&self.labels, rest),
            _ => None,
        }
    }
}

fn unknown(digest: &Digest) -> Failure {
    status::not_found(format_args!("content digest {digest}")).into()
}

/// What holds a blob or an ingest while it is written: the lease of the request, if any.
#[derive(Debug, Clone, Default)]
pub struct Hold {
    /// The lease that the client named.
    pub lease: Option<String>,
    /// The ingest that the lease holds and need not any more.
    pub ingest: Option<String>,
}

impl Hold {
    fn take(
        &self,
        transaction: &WriteTransaction,
        ns: &str,
        digest: &Digest,
    ) -> Result<(), Failure> {
        let Some(lease) = &self.lease else {
            return Ok(());
        };
        leases::pin(transaction, ns, lease, "content", &digest.to_string())?;
        match &self.ingest {
            Some(reference) => leases::unpin(transaction, ns, lease, "ingests", reference),
            None => Ok(()),
        }
    }
}

impl Store {
    /// What `namespace` knows of a blob.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn blob(&self, namespace: &str, digest: &Digest) -> Result<Info, Status> {
        self.read(|transaction| {
            let table = transaction.open_table(CONTENT)?;
            let found = table.get(key(namespace, &digest.to_string()).as_str())?;
            decode(found.ok_or_else(|| unknown(digest))?.value())
        })
    }

    /// The blobs of a namespace that pass `filters`, by digest.
    ///
    /// # Errors
    /// Those of the database.
    pub fn blobs(&self, namespace: &str, filters: &Filters) -> Result<Vec<Info>, Status> {
        let mut found: Vec<Info> =
            self.read(|transaction| list(&transaction.open_table(CONTENT)?, namespace))?;
        found.retain(|info| filters.hold(info));
        Ok(found)
    }

    /// The size of a blob that some namespace has, in bytes.
    ///
    /// # Errors
    /// Those of the database.
    pub fn blob_anywhere(&self, digest: &Digest) -> Result<Option<u64>, Status> {
        self.read(|transaction| {
            let table = transaction.open_table(BLOBS)?;
            let Some(size) = table.get(digest.to_string().as_str())? else {
                return Ok(None);
            };
            let size = size.value().try_into();
            let broken = |_| Status::data_loss(format!("metadata: size of {digest}"));
            Ok(Some(u64::from_le_bytes(size.map_err(broken)?)))
        })
    }

    /// Whether a namespace has the blob that shares what it has, by its label, where namespaces are
    /// isolated otherwise.
    ///
    /// # Errors
    /// Those of the database.
    pub fn is_shareable(&self, digest: &Digest) -> Result<bool, Status> {
        self.read(|transaction| {
            let blobs = transaction.open_table(CONTENT)?;
            for entry in transaction.open_table(NAMESPACES)?.iter()? {
                let namespace: Namespace = decode(entry?.1.value())?;
                let shares = namespace
                    .labels
                    .get(SHAREABLE)
                    .is_some_and(|it| it == "true");
                let key = key(&namespace.name, &digest.to_string());
                if shares && blobs.get(key.as_str())?.is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Lets `namespace` see a blob that is on disk.
    ///
    /// # Errors
    /// `AlreadyExists` (and then the lease holds it all the same), `NotFound` for the lease,
    /// `InvalidArgument` for the labels.
    pub async fn add_blob(
        &self,
        namespace: String,
        digest: Digest,
        mut info: Info,
        hold: Hold,
    ) -> Result<Info, Status> {
        ids::check_labels(&info.labels)?;
        info.labels = ids::without_empty(info.labels);
        info.digest = digest.to_string();
        info.created_at = Some(SystemTime::now().into());
        info.updated_at = info.created_at;
        let added = self
            .write(move |transaction| {
                namespaces::ensure(transaction, &namespace)?;
                hold.take(transaction, &namespace, &digest)?;
                let mut blobs = transaction.open_table(BLOBS)?;
                let size = u64::try_from(info.size).unwrap_or(0).to_le_bytes();
                blobs.insert(info.digest.as_str(), size.as_slice())?;
                let mut table = transaction.open_table(CONTENT)?;
                let key = key(&namespace, &info.digest);
                if table.get(key.as_str())?.is_some() {
                    return Ok(Err(digest));
                }
                table.insert(key.as_str(), info.encode_to_vec().as_slice())?;
                Ok(Ok(info))
            })
            .await?;
        added.map_err(|digest| status::already_exists(format_args!("content {digest}")))
    }

    /// Lets a lease hold a blob that is there already.
    ///
    /// # Errors
    /// `NotFound` for the lease.
    pub async fn hold_blob(
        &self,
        namespace: String,
        digest: Digest,
        hold: Hold,
    ) -> Result<(), Status> {
        if hold.lease.is_none() {
            return Ok(());
        }
        self.write(move |transaction| hold.take(transaction, &namespace, &digest))
            .await
    }

    /// Lets a lease hold an upload. A daemon that ends suddenly may forget it: then the upload is
    /// one that no lease holds, and lives for a day without data.
    ///
    /// # Errors
    /// `NotFound` for the lease.
    pub async fn hold_ingest(
        &self,
        namespace: String,
        lease: String,
        reference: String,
    ) -> Result<(), Status> {
        self.write_loosely(move |transaction| {
            leases::pin(transaction, &namespace, &lease, "ingests", &reference)
        })
        .await
    }

    /// Changes labels: those that `paths` names (`labels` or `labels.KEY`), all when it is empty.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for another path or a label that is too long.
    pub async fn update_blob(
        &self,
        namespace: String,
        digest: Digest,
        wanted: Info,
        paths: Vec<String>,
    ) -> Result<Info, Status> {
        self.write(move |transaction| {
            let mut table = transaction.open_table(CONTENT)?;
            let key = key(&namespace, &digest.to_string());
            let mut info: Info = {
                let found = table.get(key.as_str())?;
                decode(found.ok_or_else(|| unknown(&digest))?.value())?
            };
            ids::update_labels(&mut info.labels, &wanted.labels, &paths, |path| {
                format!(
                    "cannot update {path:?} field on content info {:?}",
                    wanted.digest
                )
            })?;
            info.updated_at = Some(SystemTime::now().into());
            table.insert(key.as_str(), info.encode_to_vec().as_slice())?;
            Ok(info)
        })
        .await
    }

    /// Lets a lease go of an upload that is thrown away.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn let_ingest_go(
        &self,
        namespace: String,
        lease: String,
        reference: String,
    ) -> Result<(), Status> {
        self.write(move |transaction| {
            leases::unpin(transaction, &namespace, &lease, "ingests", &reference)
        })
        .await
    }

    /// Takes a blob out of the sight of a namespace, and out of a lease; the collector removes the
    /// file when no namespace has it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn remove_blob(
        &self,
        namespace: String,
        digest: Digest,
        lease: Option<String>,
    ) -> Result<(), Status> {
        self.write(move |transaction| {
            let mut table = transaction.open_table(CONTENT)?;
            let name = digest.to_string();
            if table.remove(key(&namespace, &name).as_str())?.is_none() {
                return Err(unknown(&digest));
            }
            match &lease {
                Some(lease) => leases::unpin(transaction, &namespace, lease, "content", &name),
                None => Ok(()),
            }
        })
        .await
    }
}
