//! HTTP with one host: its certificates and headers, who we are to it, redirects.

use std::fs;
use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{
    Body, Certificate, Client, Identity, Method, RequestBuilder, Response, StatusCode, Url,
};
use serde::Deserialize;
use tokio::time::timeout;

use super::auth::{Auth, Challenge};
use super::credentials::Credentials;
use super::fault::{Fault, Why};
use super::hosts::{Endpoint, is_local};
use crate::error::{Context, Error, Result};
use crate::output;

/// How long a connection may take to come about.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// How long a host may be silent: before an answer begins, and within one.
pub(super) const SILENCE_LIMIT: Duration = Duration::from_secs(60);
const REDIRECTS: usize = 10;
/// How much is read of what a host says about an error.
const LARGEST_ERROR: u64 = 64 << 10;
/// How much of it is passed on.
const LONGEST_WORDS: usize = 300;

/// A host, and what was learnt of it.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) endpoint: Endpoint,
    /// Host and port.
    pub(super) name: String,
    pub(super) http: Client,
    pub(super) docker_file: Option<PathBuf>,
    auth: Auth,
    /// It did not answer: others are asked first from then on.
    lost: AtomicBool,
}

/// A request.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The right it needs, such as `repository:team/app:pull`.
    pub(super) scope: &'a str,
}

impl Host {
    /// Prepares for an endpoint; nothing is sent.
    ///
    /// # Errors
    /// A file with a certificate cannot be read or holds none.
    pub(super) fn new(
        endpoint: Endpoint,
        given: Option<Credentials>,
        docker_file: Option<PathBuf>,
    ) -> Result<Self> {
        let name = endpoint.name();
        // Set already from the second host on.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = Client::builder()
            .user_agent(concat!("wherry/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .tls_danger_accept_invalid_certs(endpoint.skip_verify);
        let mut roots = Vec::new();
        for file in &endpoint.ca {
            let text = fs::read(file).about(file.display().to_string())?;
            let read = Certificate::from_pem_bundle(&text);
            let read = read.ok().filter(|read| !read.is_empty());
            roots.extend(read.ok_or_else(|| no_pem(file.display(), "a certificate"))?);
        }
        if !roots.is_empty() {
            http = http.tls_certs_merge(roots);
        }
        if let Some((certificate, key)) = endpoint.client.first() {
            let mut text = fs::read(certificate).about(certificate.display().to_string())?;
            if let Some(key) = key {
                text.push(b'\n');
                text.extend(fs::read(key).about(key.display().to_string())?);
            }
            let wanted = "a certificate and its key";
            let identity =
                Identity::from_pem(&text).map_err(|_| no_pem(certificate.display(), wanted))?;
            http = http.identity(identity);
        }
        if endpoint.client.len() > 1 {
            output::complain(&format_args!(
                "{name}: only the first client certificate is used"
            ));
        }
        if is_local(&endpoint.url) {
            http = http.no_proxy();
        }
        let http = http
            .build()
            .map_err(|fault| Error::said(Fault::lost(&name, fault).to_string()))?;
        Ok(Self {
            endpoint,
            name,
            http,
            docker_file,
            auth: Auth::new(given),
            lost: AtomicBool::new(false),
        })
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn set_lost(&self, lost: bool) {
        self.lost.store(lost, Ordering::Relaxed);
    }

    /// The address of something in a repository, such as `manifests/latest`.
    pub(super) fn url(&self, repository: &str, rest: &str) -> Url {
        let mut url = self.endpoint.url.clone();
        let path = format!("{}/{repository}/{rest}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        if let Some(registry) = &self.endpoint.mirrors {
            url.query_pairs_mut().append_pair("ns", registry);
        }
        url
    }

    /// Asks, showing what the host wants to see.
    ///
    /// # Errors
    /// No answer, or none that is a success.
    pub(super) async fn ask(&self, ask: &Ask<'_>) -> std::result::Result<Response, Fault> {
        let shown = self.auth.known(ask.scope).await;
        let response = self.follow(ask, shown.as_ref()).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.judged(response).await;
        }
        let challenge = Challenge::read(response.headers());
        let said = self.said(response).await;
        let better = self
            .auth
            .answer(self, challenge, ask.scope, shown.as_ref(), said);
        let better = better.await?;
        let response = self.follow(ask, Some(&better)).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.judged(response).await;
        }
        let said = self.said(response).await;
        Err(self.auth.refusal(self, said).await)
    }

    /// Sends a body that can be sent once only, showing what was taken last for this right. The
    /// request before it, which begins an upload, has seen to that.
    ///
    /// # Errors
    /// No answer, or none that is a success.
    pub(super) async fn send(
        &self,
        ask: &Ask<'_>,
        body: Body,
    ) -> std::result::Result<Response, Fault> {
        let shown = self.auth.known(ask.scope).await;
        let request = self.request(ask, &ask.url, shown.as_ref()).body(body);
        // No limit here: how long the body takes is the sender's matter.
        let response = request.send().await;
        let response = response.map_err(|fault| Fault::lost(&self.name, fault))?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let said = self.said(response).await;
            return Err(self.auth.refusal(self, said).await);
        }
        self.judged(response).await
    }

    /// Sends a request that was built, and waits for the beginning of the answer.
    ///
    /// # Errors
    /// There is none in time.
    pub(super) async fn exchange(
        &self,
        request: RequestBuilder,
    ) -> std::result::Result<Response, Fault> {
        within(&self.name, request.send()).await
    }

    /// Sends, and follows redirects where that changes nothing.
    async fn follow(
        &self,
        ask: &Ask<'_>,
        shown: Option<&HeaderValue>,
    ) -> std::result::Result<Response, Fault> {
        let mut url = ask.url.clone();
        for _ in 0..=REDIRECTS {
            let request = self.request(ask, &url, shown).body(ask.body.clone());
            let response = self.exchange(request).await?;
            let reads = matches!(ask.method, Method::GET | Method::HEAD);
            let to = response.headers().get(LOCATION);
            let Some(to) = to.filter(|_| reads && response.status().is_redirection()) else {
                return Ok(response);
            };
            let to = to.to_str().ok().and_then(|to| url.join(to).ok());
            url = to.ok_or_else(|| Fault::nonsense(&self.name, "it redirects to no address"))?;
        }
        Err(Fault::nonsense(&self.name, "it redirects without an end"))
    }

    /// A request with all headers; ours and our credentials go to this host only.
    fn request(&self, ask: &Ask<'_>, url: &Url, shown: Option<&HeaderValue>) -> RequestBuilder {
        let mut request = self
            .http
            .request(ask.method.clone(), url.clone())
            .headers(ask.headers.clone());
        if url.origin() == self.endpoint.url.origin() {
            request = request.headers(self.endpoint.headers.clone());
            if let Some(shown) = shown {
                request = request.header(AUTHORIZATION, shown);
            }
        }
        request
    }

    /// An answer that is a success, or the fault that it tells of.
    async fn judged(&self, response: Response) -> std::result::Result<Response, Fault> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let after = response.headers().get(RETRY_AFTER);
        let after = after.and_then(|text| text.to_str().ok()?.parse().ok());
        let said = self.said(response).await;
        Err(match status {
            StatusCode::NOT_FOUND => Fault::new(&self.name, Why::NotFound),
            StatusCode::FORBIDDEN => self.auth.refusal(self, said).await,
            _ => {
                let after = after.map(Duration::from_secs);
                Fault::new(
                    &self.name,
                    Why::Refused {
                        status,
                        said,
                        after,
                    },
                )
            }
        })
    }

    /// What an answer says about an error.
    async fn said(&self, response: Response) -> String {
        let body = read_all(&self.name, response, LARGEST_ERROR).await;
        body.map(|body| said_in(&body)).unwrap_or_default()
    }
}

/// The outcome of a step, if it comes before the host was silent for too long.
pub(super) async fn within<T>(
    host: &str,
    step: impl Future<Output = reqwest::Result<T>>,
) -> std::result::Result<T, Fault> {
    match timeout(SILENCE_LIMIT, step).await {
        Ok(done) => done.map_err(|fault| Fault::lost(host, fault)),
        Err(_) => {
            let text = format!("it said nothing for {} s", SILENCE_LIMIT.as_secs());
            Err(Fault::new(host, Why::Lost(text)))
        }
    }
}

/// A body, of at most `limit` bytes.
///
/// # Errors
/// It is larger, or breaks off.
pub(super) async fn read_all(
    host: &str,
    mut response: Response,
    limit: u64,
) -> std::result::Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    while let Some(chunk) = within(host, response.chunk()).await? {
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(Fault::nonsense(
                host,
                format!("its answer is larger than {limit} bytes"),
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

#[derive(Deserialize)]
struct Complaints {
    errors: Vec<Complaint>,
}

#[derive(Deserialize)]
struct Complaint {
    #[serde(default)]
    code: String,
    message: Option<String>,
}

/// The words of a host about an error, fit for a terminal.
pub(super) fn said_in(body: &[u8]) -> String {
    let words = match serde_json::from_slice::<Complaints>(body) {
        Ok(Complaints { errors }) => {
            let texts = errors
                .into_iter()
                .map(|one| one.message.unwrap_or(one.code));
            texts.collect::<Vec<_>>().join("; ")
        }
        // A page for a browser tells nothing in its first line.
        Err(_) if body.trim_ascii_start().starts_with(b"<") => String::new(),
        Err(_) => {
            let text = String::from_utf8_lossy(body);
            text.lines().next().unwrap_or_default().to_owned()
        }
    };
    let words: String = words.chars().filter(|c| !c.is_control()).collect();
    words.chars().take(LONGEST_WORDS).collect()
}

fn no_pem(file: impl std::fmt::Display, wanted: &str) -> Error {
    Error::said(format!("{file}: it does not hold {wanted} (in PEM)"))
}

/// A host that nothing is known of but its address and headers, and one's credentials.
#[cfg(test)]
pub(super) fn host(address: &str, headers: HeaderMap) -> Host {
    let endpoint = Endpoint {
        url: Url::parse(address).unwrap(),
        capabilities: super::hosts_file::Capabilities::ALL,
        ca: Vec::new(),
        client: Vec::new(),
        skip_verify: false,
        headers,
        mirrors: None,
    };
    let given = Credentials::Password {
        user: "who".to_owned(),
        password: "secret".to_owned(),
    };
    Host::new(endpoint, Some(given), None).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_secret_goes_to_its_host_only() {
        let mut headers = HeaderMap::new();
        headers.insert("x-key", HeaderValue::from_static("ours"));
        let host = host("https://quay.example/v2", headers);
        let ask = super::super::registry::reading(Method::GET, host.url("a", "blobs/x"), "");
        let shown = HeaderValue::from_static("Bearer t");
        let sent_to = |address: &str| {
            let url = Url::parse(address).unwrap();
            let request = host.request(&ask, &url, Some(&shown)).build().unwrap();
            let has = |name: &str| request.headers().contains_key(name);
            (has("authorization"), has("x-key"))
        };
        assert_eq!(sent_to("https://quay.example/v2/a/blobs/x"), (true, true));
        for other in [
            "https://store.example/x",
            "http://quay.example/v2/a/blobs/x",
            "https://quay.example:444/v2/a/blobs/x",
        ] {
            assert_eq!(sent_to(other), (false, false), "{other}");
        }
    }

    #[test]
    fn the_words_of_a_host_are_fit_for_a_terminal() {
        let body = br#"{"errors":[{"code":"DENIED","message":"no \u001b[31mway"},{"code":"X"}]}"#;
        assert_eq!(said_in(body), "no [31mway; X");
        assert_eq!(said_in(b"<!doctype html><h1>no</h1>"), "");
        assert_eq!(
            said_in(
                b"plain words
more"
            ),
            "plain words"
        );
        assert_eq!(
            said_in("ü".repeat(1000).as_bytes()).chars().count(),
            LONGEST_WORDS
        );
        assert_eq!(said_in(b""), "");
    }
}
