//! Writing to a registry: blobs that it lacks, by a mount from another of its repositories where
//! that can be, then manifests.

use std::io;

use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use oci_spec::image::Descriptor;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Body, Method, StatusCode, Url};
use tokio::time::timeout;

use super::fault::{Fault, Why};
use super::fetch::place;
use super::host::{Ask, Host, SILENCE_LIMIT};
use super::name::Name;
use super::registry::{Faults, For, Registry, TRIES, reading};
use crate::error::Result;

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// How many pieces of a body wait to be sent.
const WAITING: usize = 4;
/// How many times the silence limit a host may take to make sure of what it got.
const PATIENCE: u32 = 10;

/// How an upload begins.
#[derive(Debug)]
pub(crate) enum Uploaded<'r> {
    /// And ends at once: the registry has it from another repository.
    Mounted,
    /// The bytes are to be sent.
    Begun(Upload<'r>),
}

/// A blob that is to be sent.
#[derive(Debug)]
pub(crate) struct Upload<'r> {
    host: &'r Host,
    url: Url,
    scope: String,
}

/// Takes the bytes of a blob.
pub(crate) struct Feed(Sender<Bytes, io::Error>);

impl Feed {
    /// Takes more bytes; answers false when no more are wanted, or none were for too long.
    pub(crate) async fn give(&mut self, bytes: Bytes) -> bool {
        matches!(
            timeout(SILENCE_LIMIT, self.0.send_data(bytes)).await,
            Ok(Ok(()))
        )
    }
}

/// The right to write a repository, and to read the one that blobs may be taken from.
fn push_right(name: &Name, from: Option<&str>) -> String {
    let repository = name.repository();
    match from {
        Some(from) => format!("repository:{repository}:pull,push repository:{from}:pull"),
        None => format!("repository:{repository}:pull,push"),
    }
}

impl Registry {
    /// Whether the registry that takes images has a blob or manifest.
    ///
    /// # Errors
    /// It does not say.
    pub(crate) async fn has(
        &self,
        name: &Name,
        what: &Descriptor,
    ) -> std::result::Result<bool, Faults> {
        let scope = &push_right(name, None);
        let asked = self.each(For::Push, TRIES, async |host| {
            let url = host.url(name.repository(), &place(what));
            match host.ask(&reading(Method::HEAD, url, scope)).await {
                Err(fault) if fault.is_not_found() => Ok(false),
                done => done.map(|_| true),
            }
        });
        asked.await
    }

    /// Begins the upload of a blob, which is taken from the repository `from` if that can be.
    ///
    /// # Errors
    /// No host takes it.
    pub(crate) async fn begin<'r>(
        &'r self,
        name: &Name,
        what: &Descriptor,
        from: Option<&str>,
    ) -> std::result::Result<Uploaded<'r>, Faults> {
        let step = |host: &'r Host| begin(host, name, what, from);
        self.each(For::Push, TRIES, step).await
    }

    /// Writes a manifest or index under a tag or its digest; answers the digest that the registry
    /// says it has.
    ///
    /// # Errors
    /// No host takes it.
    pub(crate) async fn put_manifest(
        &self,
        name: &Name,
        reference: &str,
        what: &Descriptor,
        body: Bytes,
    ) -> std::result::Result<Option<String>, Faults> {
        let scope = &push_right(name, None);
        let put = self.each(For::Push, TRIES, async |host| {
            let url = host.url(name.repository(), &format!("manifests/{reference}"));
            let mut headers = HeaderMap::new();
            let kind = HeaderValue::try_from(what.media_type().to_string())
                .map_err(|_| Fault::nonsense(&host.name, "its type cannot be a header"))?;
            headers.insert(CONTENT_TYPE, kind);
            let body = body.clone();
            let ask = Ask {
                headers,
                body,
                ..reading(Method::PUT, url, scope)
            };
            let response = host.ask(&ask).await?;
            let digest = response.headers().get(DIGEST);
            Ok(digest
                .and_then(|digest| digest.to_str().ok())
                .map(str::to_owned))
        });
        put.await
    }
}

async fn begin<'r>(
    host: &'r Host,
    name: &Name,
    what: &Descriptor,
    from: Option<&str>,
) -> std::result::Result<Uploaded<'r>, Fault> {
    let scope = push_right(name, from);
    let mut url = host.url(name.repository(), "blobs/uploads/");
    if let Some(from) = from {
        url.query_pairs_mut()
            .append_pair("mount", what.digest().as_ref())
            .append_pair("from", from);
    }
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    let ask = Ask {
        headers,
        ..reading(Method::POST, url, &scope)
    };
    let response = match host.ask(&ask).await {
        // Who may not read the other repository may still write this one.
        Err(Fault {
            why: Why::Unauthorized { .. },
            ..
        }) if from.is_some() => {
            return Box::pin(begin(host, name, what, None)).await;
        }
        done => done?,
    };
    if from.is_some() && response.status() == StatusCode::CREATED {
        return Ok(Uploaded::Mounted);
    }
    let to = response
        .headers()
        .get(LOCATION)
        .and_then(|to| to.to_str().ok());
    let to = to.and_then(|to| response.url().join(to).ok());
    let url = to.ok_or_else(|| Fault::nonsense(&host.name, "it names no place to upload to"))?;
    Ok(Uploaded::Begun(Upload { host, url, scope }))
}

impl Upload<'_> {
    /// Sends the blob, whose bytes `pump` gives.
    ///
    /// # Errors
    /// Those of the pump; within, those of the registry.
    pub(crate) async fn send<F>(
        self,
        what: &Descriptor,
        pump: impl FnOnce(Feed) -> F,
    ) -> Result<std::result::Result<(), Fault>>
    where
        F: Future<Output = Result<()>>,
    {
        let mut url = self.url;
        url.query_pairs_mut()
            .append_pair("digest", what.digest().as_ref());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_LENGTH, HeaderValue::from(what.size()));
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        );
        let ask = Ask {
            headers,
            ..reading(Method::PUT, url, &self.scope)
        };
        let (sender, body) = Channel::<Bytes, io::Error>::new(WAITING);
        let answer = self.host.send(&ask, Body::wrap(body));
        let pump = pump(Feed(sender));
        tokio::pin!(answer, pump);
        tokio::select! {
            biased;
            done = &mut answer => return Ok(done.map(drop)),
            pumped = &mut pump => pumped?,
        }
        Ok(match timeout(SILENCE_LIMIT * PATIENCE, answer).await {
            Ok(done) => done.map(drop),
            Err(_) => {
                let text = "it does not say whether it has it".to_owned();
                Err(Fault::new(&self.host.name, Why::Lost(text)))
            }
        })
    }
}
