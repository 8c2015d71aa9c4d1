//! The flags of all commands that go to a registry.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::credentials::Credentials;
use super::hosts::DEFAULT_DIR;
use crate::error::{Error, Result};
use crate::terminal;

/// How a registry is reached.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// Who we are to the registry; without a password it is asked for [default: Docker's logins]
    #[arg(short, long, value_name = "NAME[:PASSWORD]")]
    user: Option<Login>,
    /// Folder with a hosts.toml for each registry
    #[arg(long, value_name = "DIR", default_value = DEFAULT_DIR)]
    pub(super) hosts_dir: PathBuf,
    /// Speak HTTP, not HTTPS, with the registry
    #[arg(long)]
    pub(super) plain_http: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            user: None,
            hosts_dir: DEFAULT_DIR.into(),
            plain_http: false,
        }
    }
}

impl Options {
    /// The credentials that the command line gives, asked for what it lacks.
    ///
    /// # Errors
    /// There is no person to ask.
    pub(super) fn credentials(&self, registry: &str) -> Result<Option<Credentials>> {
        let Some(Login { user, password }) = &self.user else {
            return Ok(None);
        };
        let password = match password {
            Some(password) => password.clone(),
            None if terminal::is_interactive() => {
                terminal::ask_secretly(&format!("Password of {user} at {registry}: "))?
            }
            None => {
                return Err(Error::said(format!(
                    "there is nobody to ask for {user}'s password: give --user {user}:PASSWORD"
                )));
            }
        };
        let user = user.clone();
        Ok(Some(Credentials::Password { user, password }))
    }
}

/// A name, and perhaps a password, which is never shown.
#[derive(Clone)]
struct Login {
    user: String,
    password: Option<String>,
}

impl FromStr for Login {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let (user, password) = match text.split_once(':') {
            Some((user, password)) => (user, Some(password.to_owned())),
            None => (text, None),
        };
        if user.is_empty() {
            return Err("there is no name in it");
        }
        let user = user.to_owned();
        Ok(Self { user, password })
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.user.fmt(f)
    }
}
