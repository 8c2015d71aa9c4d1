//! Blobs and uploads beside Debian's containerd: both daemons are asked the same and must answer
//! the same codes; and what a daemon that is killed leaves of an upload.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test ends where something is not as it must be"
)]

#[path = "../common/api.rs"]
mod api;
#[path = "../common/mod.rs"]
mod common;

mod conversation;
mod sharing;
mod uploads;

use api::{Peer, code};
use core_api::content::{
    ReadContentRequest, ReadContentResponse, WriteAction, WriteContentRequest, WriteContentResponse,
};
use sha2::{Digest, Sha256};
use tonic::Code;

fn digest(data: &[u8]) -> String {
    let hash = Sha256::digest(data);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn message(action: WriteAction, reference: &str) -> WriteContentRequest {
    WriteContentRequest {
        action: action.into(),
        r#ref: reference.to_owned(),
        ..WriteContentRequest::default()
    }
}

fn data(reference: &str, offset: i64, data: &[u8]) -> WriteContentRequest {
    WriteContentRequest {
        offset,
        data: data.to_vec(),
        ..message(WriteAction::Write, reference)
    }
}

fn commit(reference: &str, offset: i64, total: i64, expected: &str) -> WriteContentRequest {
    WriteContentRequest {
        offset,
        total,
        expected: expected.to_owned(),
        ..message(WriteAction::Commit, reference)
    }
}

/// What is compared of a conversation: offsets, totals and digests, and the code of its end.
async fn write(peer: &Peer, lease: Option<&str>, messages: Vec<WriteContentRequest>) -> String {
    let (answers, end): (Vec<WriteContentResponse>, _) = peer
        .converse("content.v1.Content/Write", lease, messages)
        .await;
    let mut told: Vec<String> = answers
        .iter()
        .map(|a| format!("{} {} {}", a.action, a.offset, a.digest))
        .collect();
    // containerd says its last word twice when the client has ended, and the total only with STAT.
    told.dedup();
    format!("{told:?} then {:?}", code(&end))
}

async fn read(peer: &Peer, digest: &str, offset: i64, size: i64) -> Result<Vec<u8>, Code> {
    let request = ReadContentRequest {
        digest: digest.to_owned(),
        offset,
        size,
    };
    let mut stream = peer
        .stream::<_, ReadContentResponse>("content.v1.Content/Read", request)
        .await
        .map_err(|refusal| refusal.code())?;
    let mut all = Vec::new();
    while let Some(part) = stream.message().await.map_err(|refusal| refusal.code())? {
        all.extend(part.data);
    }
    Ok(all)
}

async fn unary<A, R>(peer: &Peer, method: &str, request: A) -> Code
where
    A: prost::Message + 'static,
    R: prost::Message + Default + std::fmt::Debug + 'static,
{
    let answer: Result<R, _> = peer
        .call(&format!("content.v1.Content/{method}"), request)
        .await;
    code(&answer)
}
