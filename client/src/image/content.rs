//! Blobs of the daemon: whether they are there, their bytes, their labels.

use std::collections::BTreeMap;

use core_api::FieldMask;
use core_api::content::{
    Info, InfoRequest, ReadContentRequest, ReadContentResponse, UpdateRequest,
};
use oci_spec::image::{Descriptor, Digest, ImageConfiguration};
use tonic::{Code, Streaming};

use super::digest;
use super::manifest::{self, Document};
use crate::connection::Connection;
use crate::error::{Context, Error, Result};

/// What the daemon knows of a blob, if it has it.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn info(connection: &Connection, digest: &Digest) -> Result<Option<Info>> {
    let request = InfoRequest {
        digest: digest.to_string(),
    };
    match connection.content().info(request).await {
        Ok(answer) => Ok(answer.into_inner().info),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(Error::refused(digest.to_string(), status)),
    }
}

/// Sets these labels of a blob, and leaves the others; an empty value takes a label away.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn set_labels(
    connection: &Connection,
    digest: &Digest,
    labels: BTreeMap<String, String>,
) -> Result<()> {
    if labels.is_empty() {
        return Ok(());
    }
    let paths = labels.keys().map(|name| format!("labels.{name}")).collect();
    let request = UpdateRequest {
        info: Some(Info {
            digest: digest.to_string(),
            labels,
            ..Info::default()
        }),
        update_mask: Some(FieldMask { paths }),
    };
    let updated = connection.content().update(request).await;
    updated.map(drop).about(format!("cannot label {digest}"))
}

/// The bytes of a blob, in order.
#[derive(Debug)]
pub(crate) struct Reading {
    digest: Digest,
    answers: Streaming<ReadContentResponse>,
}

/// Reads a blob from an offset to its end.
///
/// # Errors
/// The daemon's refusal.
pub(crate) async fn stream(
    connection: &Connection,
    digest: &Digest,
    offset: u64,
) -> Result<Reading> {
    let request = ReadContentRequest {
        digest: digest.to_string(),
        offset: i64::try_from(offset).unwrap_or(i64::MAX),
        size: 0,
    };
    let answered = connection.content().read(request).await;
    let answers = answered
        .about(format!("cannot read {digest}"))?
        .into_inner();
    let digest = digest.clone();
    Ok(Reading { digest, answers })
}

impl Reading {
    /// The next bytes; none at the end.
    ///
    /// # Errors
    /// The daemon's.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let answer = self.answers.message().await;
        let answer = answer.about(format!("cannot read {}", self.digest))?;
        Ok(answer.map(|answer| answer.data))
    }
}

/// All bytes of a document, which have its digest.
///
/// # Errors
/// It is not there, damaged, or larger than a document may be.
pub(crate) async fn read_whole(connection: &Connection, digest: &Digest) -> Result<Vec<u8>> {
    let mut reading = stream(connection, digest, 0).await?;
    let mut bytes = Vec::new();
    while let Some(more) = reading.next().await? {
        if (bytes.len() + more.len()) as u64 > manifest::LARGEST {
            let largest = manifest::LARGEST;
            let text = format!("{digest} is no document: it has more than {largest} bytes");
            return Err(Error::said(text));
        }
        bytes.extend_from_slice(&more);
    }
    digest::verify(digest, &bytes)?;
    Ok(bytes)
}

/// The index or manifest that a descriptor names.
///
/// # Errors
/// As [`read_whole`] and [`manifest::read`].
pub(crate) async fn read_document(
    connection: &Connection,
    descriptor: &Descriptor,
) -> Result<Document> {
    let bytes = read_whole(connection, descriptor.digest()).await?;
    manifest::read(descriptor, &bytes)
}

/// The configuration that a descriptor names.
///
/// # Errors
/// As [`read_whole`] and [`manifest::read_config`].
pub(crate) async fn read_config(
    connection: &Connection,
    descriptor: &Descriptor,
) -> Result<ImageConfiguration> {
    let bytes = read_whole(connection, descriptor.digest()).await?;
    manifest::read_config(descriptor.digest(), &bytes)
}
