//! A registry: the hosts that serve its images, asked in turn.

use std::fmt;
use std::time::Duration;

use reqwest::Method;
use tokio::time::sleep;

use super::credentials::docker_file;
use super::fault::{Fault, Why};
use super::host::{Ask, Host};
use super::hosts::{self, Endpoint};
use super::name::Name;
use super::options::Options;
use crate::error::{Error, Result};

/// The first pause before the last host is asked again; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause, also where a host asks for more.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How often the last host is asked again where nothing else says so.
pub(super) const TRIES: u32 = 3;

/// The hosts for one registry.
#[derive(Debug)]
pub(crate) struct Registry {
    hosts: Vec<Host>,
}

/// What each host that was asked answered, in their order.
#[derive(Debug)]
pub(crate) struct Faults(Vec<Fault>);

/// What a host is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum For {
    /// Something by its digest.
    Pull,
    /// What a tag means.
    Resolve,
    /// Taking an image.
    Push,
}

impl For {
    fn allows(self, endpoint: &Endpoint) -> bool {
        match self {
            Self::Pull => endpoint.capabilities.pull,
            Self::Resolve => endpoint.capabilities.resolve,
            Self::Push => endpoint.capabilities.push,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Resolve => "resolve",
            Self::Push => "push",
        }
    }
}

impl Registry {
    /// Finds the hosts for an image. Nothing is sent yet.
    ///
    /// # Errors
    /// A file about them is wrong, or a password is missing.
    pub(crate) fn open(name: &Name, options: &Options) -> Result<Self> {
        let registry = name.registry();
        let mut given = options.credentials(registry)?;
        let endpoints = hosts::find(registry, &options.hosts_dir, options.plain_http)?;
        let server = endpoints.len() - 1;
        let hosts = endpoints.into_iter().enumerate().map(|(place, endpoint)| {
            // What the command line gives is for the registry, not for its mirrors.
            let given = (place == server).then(|| given.take()).flatten();
            Host::new(endpoint, given, docker_file())
        });
        let hosts = hosts.collect::<Result<_>>()?;
        Ok(Self { hosts })
    }

    /// The hosts that may be asked for something, those that answered so far first.
    pub(super) fn hosts(&self, purpose: For) -> Vec<&Host> {
        let may = |host: &&Host| purpose.allows(&host.endpoint);
        let mut hosts: Vec<&Host> = self.hosts.iter().filter(may).collect();
        hosts.sort_by_key(|host| host.is_lost());
        hosts
    }

    /// Has the others asked first from now on, if there are any.
    pub(crate) fn avoid(&self, fault: &Fault) {
        for host in self.hosts.iter().filter(|host| host.name == fault.host) {
            host.set_lost(true);
        }
    }

    /// Asks one host after the other until one does it; the last is asked again when it may do
    /// better then, at most `tries` times.
    pub(super) async fn each<'s, T, F>(
        &'s self,
        purpose: For,
        tries: u32,
        step: impl Fn(&'s Host) -> F,
    ) -> std::result::Result<T, Faults>
    where
        F: Future<Output = std::result::Result<T, Fault>>,
    {
        let hosts = self.hosts(purpose);
        let mut faults = Vec::new();
        for (place, host) in hosts.iter().enumerate() {
            let tries = if place + 1 == hosts.len() { tries } else { 0 };
            match patiently(tries, || step(host)).await {
                Ok(done) => {
                    host.set_lost(false);
                    return Ok(done);
                }
                Err(fault) => {
                    host.set_lost(matches!(fault.why, Why::Lost(_)));
                    faults.push(fault);
                }
            }
        }
        if faults.is_empty() {
            let hosts = self.hosts.first().map_or("", |host| &host.name);
            let what = format!(
                "hosts.toml allows no host to be asked to {}",
                purpose.word()
            );
            faults.push(Fault::nonsense(hosts, what));
        }
        Err(Faults(faults))
    }
}

/// Does a step, and again after a pause when it may do better then, at most `tries` times more.
pub(super) async fn patiently<T, F>(
    tries: u32,
    step: impl Fn() -> F,
) -> std::result::Result<T, Fault>
where
    F: Future<Output = std::result::Result<T, Fault>>,
{
    let mut again = 0;
    loop {
        match step().await {
            Err(fault) if fault.is_passing() && again < tries => {
                sleep(pause(again, &fault)).await;
                again += 1;
            }
            done => return done,
        }
    }
}

/// How long to wait before something is tried again the `again`-th time, from 0 on.
fn pause(again: u32, fault: &Fault) -> Duration {
    let own = FIRST_PAUSE * 2_u32.saturating_pow(again.min(8));
    let asked = fault.after().unwrap_or_default();
    own.max(asked).min(LONGEST_PAUSE)
}

/// A request without a body.
pub(super) fn reading<'a>(method: Method, url: reqwest::Url, scope: &'a str) -> Ask<'a> {
    Ask {
        method,
        url,
        headers: reqwest::header::HeaderMap::new(),
        body: bytes::Bytes::new(),
        scope,
    }
}

/// The right to read a repository.
pub(super) fn pull_right(name: &Name) -> String {
    format!("repository:{}:pull", name.repository())
}

impl Faults {
    /// Whether the host that was asked last may do better a little later.
    pub(crate) fn is_passing(&self) -> bool {
        self.0.last().is_some_and(Fault::is_passing)
    }

    /// How long to wait before asking again the `again`-th time, from 0 on.
    pub(crate) fn pause(&self, again: u32) -> Duration {
        self.0
            .last()
            .map_or(FIRST_PAUSE, |fault| pause(again, fault))
    }

    /// The error for people, with what was wanted in front.
    pub(crate) fn about(self, what: impl fmt::Display) -> Error {
        Error::said(format!("{what}: {self}"))
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, fault) in self.0.iter().enumerate() {
            let between = if place == 0 { "" } else { "; " };
            write!(f, "{between}{fault}")?;
        }
        Ok(())
    }
}
