//! Who we are to a registry: `--user`, or what `docker login` left: Docker's configuration file
//! and the programs it names (`docker-credential-NAME get`). No message has a password in it.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use crate::output;

/// How Docker's file calls the hub, whichever of its hosts is asked.
const HUB_KEY: &str = "https://index.docker.io/v1/";
const HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// A helper may ask a person to unlock something.
const HELPER_LIMIT: Duration = Duration::from_secs(60);
/// The name that says that a helper's secret is an identity token.
const TOKEN_NAME: &str = "<token>";

/// What is shown to a registry, or to whoever makes its tokens.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Credentials {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: String,
    },
    /// A token that stands for a person and is changed for others.
    Identity(String),
}

impl Credentials {
    /// Whom they name, for messages.
    pub(super) fn whom(&self) -> String {
        match self {
            Self::Password { user, .. } => user.clone(),
            Self::Identity(_) => "the bearer of the identity token".to_owned(),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials of {}", self.whom())
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DockerFile {
    auths: BTreeMap<String, Login>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

impl Login {
    fn credentials(&self) -> Option<Credentials> {
        if let Some(token) = self
            .identitytoken
            .as_ref()
            .filter(|token| !token.is_empty())
        {
            return Some(Credentials::Identity(token.clone()));
        }
        let (user, password) = match self.auth.as_ref().filter(|auth| !auth.is_empty()) {
            Some(auth) => {
                let text = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
                let (user, password) = text.split_once(':')?;
                // Docker's own old versions padded passwords.
                (user.to_owned(), password.trim_end_matches('\0').to_owned())
            }
            None => (self.username.clone()?, self.password.clone()?),
        };
        Some(Credentials::Password { user, password })
    }
}

/// Where Docker's file is by the environment.
pub(super) fn docker_file() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let folder = match variable("DOCKER_CONFIG") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(variable("HOME")?).join(".docker"),
    };
    Some(folder.join("config.json"))
}

/// Finds the credentials for a host (with its port, if the address has one). What keeps them from
/// being read is told, and then there are none: many things can be pulled without.
pub(super) async fn find(host: &str, file: Option<PathBuf>) -> Option<Credentials> {
    let file = file?;
    let text = match fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            output::complain(&format_args!("{}: {error}", file.display()));
            return None;
        }
    };
    let read = serde_json::from_slice::<DockerFile>(&text);
    let known = read
        .map_err(|error| {
            // The parser's own words may quote a secret.
            let (line, column) = (error.line(), error.column());
            let file = file.display();
            output::complain(&format_args!(
                "{file}:{line}:{column}: this is not Docker's configuration; its credentials are \
                 not used"
            ));
        })
        .ok()?;
    let helper = known.cred_helpers.iter().find(|(key, _)| is_for(key, host));
    let helper = helper.map(|(_, name)| name).or(known.creds_store.as_ref());
    if let Some(name) = helper.filter(|name| !name.is_empty()) {
        match ask(name, host).await {
            Ok(Some(found)) => return Some(found),
            Ok(None) => {}
            Err(why) => output::complain(&format_args!(
                "{}: docker-credential-{name} gives no credentials for {host}: {why}",
                file.display()
            )),
        }
    }
    let login = known.auths.iter().find(|(key, _)| is_for(key, host));
    login.and_then(|(_, login)| login.credentials())
}

/// Whether an entry's key, a host or an address, is about a host.
fn is_for(key: &str, host: &str) -> bool {
    let bare = key.split_once("://").map_or(key, |(_, rest)| rest);
    let bare = bare.split('/').next().unwrap_or(bare);
    bare == host || HUB_HOSTS.contains(&host) && HUB_HOSTS.contains(&bare)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Asks a helper program.
///
/// # Errors
/// Why it gives none, when not for there being none.
async fn ask(name: &str, host: &str) -> Result<Option<Credentials>, String> {
    if name.contains('/') {
        return Err("a name has no slash".to_owned());
    }
    let server = if HUB_HOSTS.contains(&host) {
        HUB_KEY
    } else {
        host
    };
    let run = async {
        let mut child = Command::new(format!("docker-credential-{name}"))
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that answers without reading is as good.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let ended = timeout(HELPER_LIMIT, run)
        .await
        .map_err(|_| format!("it does not end within {} s", HELPER_LIMIT.as_secs()))?
        .map_err(|error| error.to_string())?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stdout);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        let words = String::from_utf8_lossy(&ended.stderr);
        let words = words.lines().next().unwrap_or_default();
        return Err(format!("{} {words}", ended.status).trim_end().to_owned());
    }
    let answer: Answer = serde_json::from_slice(&ended.stdout)
        .map_err(|_| "its answer has no Username and Secret".to_owned())?;
    if answer.secret.is_empty() {
        return Ok(None);
    }
    Ok(Some(if answer.username == TOKEN_NAME {
        Credentials::Identity(answer.secret)
    } else {
        Credentials::Password {
            user: answer.username,
            password: answer.secret,
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password {
            user: user.to_owned(),
            password: password.to_owned(),
        })
    }

    #[tokio::test]
    async fn logins_are_found_however_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        let auth = STANDARD.encode("me:pass:word");
        fs::write(
            &file,
            format!(
                r#"{{"auths": {{
                    "https://index.docker.io/v1/": {{"auth": "{auth}"}},
                    "quay.io:5000": {{"username": "a", "password": "b"}},
                    "http://old.example/v2/": {{"identitytoken": "t", "auth": "{auth}"}},
                    "empty.example": {{}}, "broken.example": {{"auth": "%"}}
                }}, "credsStore": "", "HttpHeaders": {{}}}}"#
            ),
        )
        .unwrap();
        let find = |host: &'static str| find(host, Some(file.clone()));
        assert_eq!(
            find("registry-1.docker.io").await,
            password("me", "pass:word")
        );
        assert_eq!(find("quay.io:5000").await, password("a", "b"));
        assert_eq!(find("quay.io").await, None);
        let token = Some(Credentials::Identity("t".to_owned()));
        assert_eq!(find("old.example").await, token);
        assert_eq!(find("empty.example").await, None);
        assert_eq!(find("broken.example").await, None);
        fs::write(&file, "{\"auths\": \"secret\"}").unwrap();
        assert_eq!(find("quay.io").await, None);
    }

    #[test]
    fn nothing_secret_is_shown() {
        let shown = format!("{:?}", password("me", "hidden"));
        assert!(shown.contains("me") && !shown.contains("hidden"));
    }
}
