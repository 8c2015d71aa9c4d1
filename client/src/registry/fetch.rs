//! Reading from a registry: what a name means, manifests, and blobs from any offset on.

use bytes::Bytes;
use oci_spec::image::{Descriptor, MediaType};
use reqwest::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE,
};
use reqwest::{Method, Response, StatusCode};

use super::fault::{Fault, Why};
use super::host::{Ask, Host, read_all, within};
use super::name::Name;
use super::registry::{Faults, For, Registry, TRIES, pull_right, reading};
use crate::image::digest;
use crate::image::manifest::{Kind, LARGEST, kind};

const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
                         application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

/// A blob on its way, from the offset on that was asked for.
#[derive(Debug)]
pub(crate) struct Blob {
    host: String,
    response: Response,
    /// Bytes that come although they were not asked for.
    skip: u64,
    /// Bytes that are still to come.
    left: u64,
}

impl Registry {
    /// What a name means: the type, size and digest of its manifest or index.
    ///
    /// # Errors
    /// No host knows it.
    pub(crate) async fn resolve(&self, name: &Name) -> Result<Descriptor, Faults> {
        let purpose = if name.digest().is_some() {
            For::Pull
        } else {
            For::Resolve
        };
        let scope = &pull_right(name);
        self.each(purpose, TRIES, |host| resolve(host, name, scope))
            .await
    }

    /// A manifest or another small thing, whole. It is not verified.
    ///
    /// # Errors
    /// No host has it.
    pub(crate) async fn read(&self, name: &Name, what: &Descriptor) -> Result<Vec<u8>, Faults> {
        let scope = &pull_right(name);
        let small = async |host| {
            let mut blob = open(host, name, scope, what, 0).await?;
            let mut read = Vec::new();
            while let Some(chunk) = blob.next().await? {
                read.extend_from_slice(&chunk);
            }
            Ok(read)
        };
        self.each(For::Pull, TRIES, small).await
    }

    /// A blob from an offset on, which is below its size. It is not verified. Trying again is the
    /// caller's matter, as it is after a blob that breaks off.
    ///
    /// # Errors
    /// No host has it.
    pub(crate) async fn blob(
        &self,
        name: &Name,
        what: &Descriptor,
        offset: u64,
    ) -> Result<Blob, Faults> {
        let scope = &pull_right(name);
        self.each(For::Pull, 0, |host| open(host, name, scope, what, offset))
            .await
    }
}

/// Whether it is served as a manifest, not as a blob.
fn is_manifest(media_type: &MediaType) -> bool {
    matches!(kind(media_type), Kind::Manifest | Kind::Index)
}

/// Where a thing is, below its repository.
pub(super) fn place(what: &Descriptor) -> String {
    let folder = if is_manifest(what.media_type()) {
        "manifests"
    } else {
        "blobs"
    };
    format!("{folder}/{}", what.digest())
}

async fn resolve(host: &Host, name: &Name, scope: &str) -> Result<Descriptor, Fault> {
    let url = host.url(
        name.repository(),
        &format!("manifests/{}", name.reference()),
    );
    let ask = |method| {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(MANIFESTS));
        Ask {
            headers,
            ..reading(method, url.clone(), scope)
        }
    };
    let response = host.ask(&ask(Method::HEAD)).await?;
    let headers = response.headers();
    let of = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::to_owned);
    let (kind, digest) = (of(CONTENT_TYPE), of(DIGEST));
    let size = of(CONTENT_LENGTH).and_then(|size| size.parse::<u64>().ok());
    let (kind, size, digest) = match (kind, size, digest) {
        (Some(kind), Some(size), Some(digest)) => (kind, size, digest),
        // A host that tells less is asked for the thing itself.
        _ => {
            let response = host.ask(&ask(Method::GET)).await?;
            let kind = response.headers().get(CONTENT_TYPE);
            let kind = kind
                .and_then(|kind| kind.to_str().ok())
                .unwrap_or_default()
                .to_owned();
            let body = read_all(&host.name, response, LARGEST).await?;
            let digest = digest::of(&body).to_string();
            (kind, body.len() as u64, digest)
        }
    };
    if size > LARGEST {
        let text = format!("its manifest of {size} bytes is larger than {LARGEST}");
        return Err(Fault::nonsense(&host.name, text));
    }
    if let Some(wanted) = name.digest().filter(|wanted| *wanted != digest) {
        let text = format!("it answers {digest} when asked for {wanted}");
        return Err(Fault::nonsense(&host.name, text));
    }
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !is_manifest(&MediaType::from(kind)) {
        let text = format!(
            "what it has under this name is of the type {kind:?}, not an image of OCI or Docker \
             (schema 2)"
        );
        return Err(Fault::nonsense(&host.name, text));
    }
    let digest = digest
        .parse::<oci_spec::image::Digest>()
        .map_err(|_| Fault::nonsense(&host.name, format!("{digest:?} is no digest")))?;
    Ok(Descriptor::new(MediaType::from(kind), size, digest))
}

async fn open(
    host: &Host,
    name: &Name,
    scope: &str,
    what: &Descriptor,
    offset: u64,
) -> Result<Blob, Fault> {
    let url = host.url(name.repository(), &place(what));
    let mut headers = HeaderMap::new();
    // Without it some hosts would turn a manifest into an older kind.
    let accept = if is_manifest(what.media_type()) {
        MANIFESTS
    } else {
        "*/*"
    };
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    if offset > 0
        && let Ok(range) = HeaderValue::try_from(format!("bytes={offset}-"))
    {
        headers.insert(RANGE, range);
    }
    let ask = Ask {
        headers,
        ..reading(Method::GET, url, scope)
    };
    let response = host.ask(&ask).await?;
    let skip = match response.status() {
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(CONTENT_RANGE);
            let range = range
                .and_then(|range| range.to_str().ok())
                .unwrap_or_default();
            if !range.starts_with(&format!("bytes {offset}-")) {
                let text = format!("asked for the bytes from {offset} on, it sends {range:?}");
                return Err(Fault::nonsense(&host.name, text));
            }
            0
        }
        // It cannot do ranges: what is there already comes again.
        _ => offset,
    };
    Ok(Blob {
        host: host.name.clone(),
        response,
        skip,
        left: what.size().saturating_sub(offset),
    })
}

impl Blob {
    /// The next bytes; none at the end, which comes when the size is reached.
    ///
    /// # Errors
    /// It breaks off, or there is more than its size.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Fault> {
        loop {
            let Some(mut chunk) = within(&self.host, self.response.chunk()).await? else {
                if self.left > 0 {
                    let text = format!("{} bytes did not come", self.left);
                    return Err(Fault::new(&self.host, Why::Lost(text)));
                }
                return Ok(None);
            };
            let skipped = self.skip.min(chunk.len() as u64);
            self.skip -= skipped;
            // At most the length of the chunk.
            let chunk = chunk.split_off(usize::try_from(skipped).unwrap_or(usize::MAX));
            let length = chunk.len() as u64;
            if length > self.left {
                let text = "it sends more than the size of the thing".to_owned();
                return Err(Fault::new(&self.host, Why::Nonsense(text)));
            }
            self.left -= length;
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }
}
