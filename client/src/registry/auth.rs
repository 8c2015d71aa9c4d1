//! What a host wants to see before it answers: nothing, a password (Basic), or a token (Bearer)
//! that is fetched from where the host says. Tokens are kept for as long as they are taken.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Url};
use serde::Deserialize;
use tokio::sync::{Mutex, OnceCell};

use super::credentials::Credentials;
use super::fault::{Fault, Why};
use super::host::{Host, read_all, said_in};
use super::hosts::is_local;

/// Largest answer that has a token in it.
const LARGEST_ANSWER: u64 = 1 << 20;

/// What a host said it wants.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Challenge {
    /// Where tokens are made.
    bearer: Option<Bearer>,
    /// Whether a password will do.
    basic: bool,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Bearer {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

impl Challenge {
    /// Reads it from an answer's headers.
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let mut read = Self::default();
        let texts = headers.get_all(WWW_AUTHENTICATE).iter();
        for text in texts.filter_map(|value| value.to_str().ok()) {
            for challenge in http_auth::parse_challenges(text).unwrap_or_default() {
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    read.basic = true;
                } else if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let of = |name: &str| {
                        let mut found = challenge.params.iter();
                        let found = found.find(|(key, _)| key.eq_ignore_ascii_case(name));
                        found.map(|(_, value)| value.to_unescaped())
                    };
                    read.bearer = of("realm").map(|realm| Bearer {
                        realm,
                        service: of("service"),
                        scope: of("scope"),
                    });
                }
            }
        }
        read
    }
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

/// What was shown to a host, and was taken.
#[derive(Debug)]
pub(super) struct Auth {
    given: Option<Credentials>,
    found: OnceCell<Option<Credentials>>,
    /// By what it gives a right to.
    headers: Mutex<HashMap<String, HeaderValue>>,
}

impl Auth {
    /// With the credentials from the command line, if there are any for this host.
    pub(super) fn new(given: Option<Credentials>) -> Self {
        Self {
            given,
            found: OnceCell::new(),
            headers: Mutex::default(),
        }
    }

    async fn credentials(&self, host: &Host) -> Option<&Credentials> {
        if self.given.is_some() {
            return self.given.as_ref();
        }
        let look = || super::credentials::find(&host.name, host.docker_file.clone());
        self.found.get_or_init(look).await.as_ref()
    }

    /// The header that was taken last, for a right such as `repository:team/app:pull`.
    pub(super) async fn known(&self, scope: &str) -> Option<HeaderValue> {
        self.headers.lock().await.get(scope).cloned()
    }

    /// A new header, after the host refused `shown`.
    ///
    /// # Errors
    /// There is nothing better to show.
    pub(super) async fn answer(
        &self,
        host: &Host,
        challenge: Challenge,
        scope: &str,
        shown: Option<&HeaderValue>,
        said: String,
    ) -> Result<HeaderValue, Fault> {
        let mut headers = self.headers.lock().await;
        // Another request may have got one while this one waited.
        if let Some(known) = headers.get(scope).filter(|known| Some(*known) != shown) {
            return Ok(known.clone());
        }
        let credentials = self.credentials(host).await;
        let refused = |said| {
            let as_whom = credentials.map(Credentials::whom);
            Fault::new(&host.name, Why::Unauthorized { said, as_whom })
        };
        let text = match (challenge, credentials) {
            (
                Challenge {
                    bearer: Some(bearer),
                    ..
                },
                _,
            ) => {
                let token = fetch(host, &bearer, scope, credentials, refused).await?;
                format!("Bearer {token}")
            }
            (Challenge { basic: true, .. }, Some(Credentials::Password { user, password })) => {
                basic(user, password)
            }
            _ => return Err(refused(said)),
        };
        let mut header = HeaderValue::try_from(text)
            .map_err(|_| Fault::nonsense(&host.name, "its token cannot be a header"))?;
        header.set_sensitive(true);
        if Some(&header) == shown {
            return Err(refused(said));
        }
        headers.insert(scope.to_owned(), header.clone());
        Ok(header)
    }

    /// The fault of a request that was refused whatever was shown.
    pub(super) async fn refusal(&self, host: &Host, said: String) -> Fault {
        let as_whom = self.credentials(host).await.map(Credentials::whom);
        Fault::new(&host.name, Why::Unauthorized { said, as_whom })
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// Fetches a token.
async fn fetch(
    host: &Host,
    bearer: &Bearer,
    scope: &str,
    credentials: Option<&Credentials>,
    refused: impl Fn(String) -> Fault,
) -> Result<String, Fault> {
    let name = &host.name;
    let wrong = |why: &str| {
        let text = format!("it wants a token from {:?}, {why}", bearer.realm);
        Fault::nonsense(name, text)
    };
    let mut url = Url::parse(&bearer.realm).map_err(|_| wrong("which is no address"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("which is no address"));
    }
    let is_open = url.scheme() == "http" && !is_local(&url);
    if is_open && credentials.is_some() && host.endpoint.url.scheme() == "https" {
        return Err(wrong("where credentials would go in the clear"));
    }
    let mut scopes: Vec<&str> = scope.split(' ').collect();
    let wanted = bearer.scope.as_deref().unwrap_or_default();
    scopes.extend(
        wanted
            .split(' ')
            .filter(|wish| !wish.is_empty() && !covers(scope, wish)),
    );
    let request = if let Some(Credentials::Identity(token)) = credentials {
        // The grant of OAuth 2 by a refresh token.
        let mut form = url.clone();
        form.set_query(None);
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("client_id", "wherry")
            .append_pair("service", bearer.service.as_deref().unwrap_or_default())
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", token);
        let form = form.query().unwrap_or_default().to_owned();
        host.http
            .request(Method::POST, url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form)
    } else {
        let mut query = url.query_pairs_mut();
        if let Some(service) = &bearer.service {
            query.append_pair("service", service);
        }
        for scope in &scopes {
            query.append_pair("scope", scope);
        }
        drop(query);
        let request = host.http.request(Method::GET, url);
        match credentials {
            Some(Credentials::Password { user, password }) => {
                let mut value = HeaderValue::try_from(basic(user, password))
                    .map_err(|_| Fault::nonsense(name, "credentials cannot be sent"))?;
                value.set_sensitive(true);
                request.header(AUTHORIZATION, value)
            }
            _ => request,
        }
    };
    let response = host.exchange(request).await?;
    let status = response.status();
    let body = read_all(name, response, LARGEST_ANSWER).await?;
    if matches!(status.as_u16(), 400 | 401 | 403) {
        return Err(refused(said_in(&body)));
    }
    if !status.is_success() {
        let (said, after) = (said_in(&body), None);
        return Err(Fault::new(
            name,
            Why::Refused {
                status,
                said,
                after,
            },
        ));
    }
    // The parser's words may quote the token.
    let answer: Answer = serde_json::from_slice(&body).map_err(|_| wrong("which gives none"))?;
    let token = answer.token.filter(|token| !token.is_empty());
    token
        .or(answer.access_token)
        .ok_or_else(|| wrong("which gives none"))
}

/// Whether rights that are asked for include others: `repository:a:pull,push` does `…:pull`.
fn covers(ours: &str, theirs: &str) -> bool {
    let Some((what, actions)) = theirs.rsplit_once(':') else {
        return false;
    };
    ours.split(' ').any(|scope| {
        scope.rsplit_once(':').is_some_and(|(own, granted)| {
            let has = |action: &str| granted.split(',').any(|one| one == action);
            own == what && actions.split(',').all(has)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&'static str]) -> Challenge {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(text));
        }
        Challenge::read(&headers)
    }

    #[test]
    fn challenges_are_read() {
        let text = "Bearer realm=\"https://auth.example/t?a=b\",service=\"r\",\
                    scope=\"repository:a/b:pull,push\"";
        let read_one = read(&[text]);
        let bearer = read_one.bearer.unwrap();
        assert_eq!(bearer.realm, "https://auth.example/t?a=b");
        assert_eq!(bearer.scope.as_deref(), Some("repository:a/b:pull,push"));
        assert!(!read_one.basic);
        assert!(read(&["Basic realm=\"x\""]).basic);
        let both = read(&["Negotiate", "basic realm=x, bearer realm=\"http://y\""]);
        assert!(both.basic && both.bearer.is_some());
        assert_eq!(
            read(&["Bearer service=\"r\"", "\"", ""]),
            Challenge::default()
        );
    }

    #[tokio::test]
    async fn a_token_is_not_fetched_in_the_clear() {
        let host = super::super::host::host("https://quay.example/v2", HeaderMap::new());
        for realm in ["http://auth.example/token", "ftp://auth.example", "here"] {
            let bearer = Some(Bearer {
                realm: realm.to_owned(),
                ..Bearer::default()
            });
            let challenge = Challenge {
                bearer,
                ..Challenge::default()
            };
            let auth = Auth::new(Some(Credentials::Password {
                user: "who".to_owned(),
                password: "secret".to_owned(),
            }));
            let answer = auth.answer(&host, challenge, "repository:a:pull", None, String::new());
            let said = answer.await.unwrap_err().to_string();
            assert!(said.contains(realm) && !said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn rights_include_others() {
        let ours = "repository:a:pull,push repository:b:pull";
        assert!(covers(ours, "repository:a:pull"));
        assert!(covers(ours, "repository:b:pull"));
        assert!(!covers(ours, "repository:b:push"));
        assert!(!covers(ours, "registry:catalog:*"));
        assert!(!covers(ours, "odd"));
    }
}
