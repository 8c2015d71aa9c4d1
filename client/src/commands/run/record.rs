//! The record of a new container: on a folder, or on a snapshot of an image.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use core_api::containers::container::Runtime;
use core_api::containers::{Container, CreateContainerRequest};
use core_api::prost::Message;
use core_api::types::Mount;
use core_api::{Any, runc_options};
use oci_spec::image::Config;
use oci_spec::runtime::User;

use super::{Fetch, Run};
use crate::connection::Connection;
use crate::error::{Context, Error, Result};
use crate::image::lease::{Lease, under_lease};
use crate::image::progress::Progress;
use crate::image::ready::{self, Choice, Ready};
use crate::image::{inside, record as images, snapshot};
use crate::registry::{Name, Options, Registry};
use crate::spec::{self, Wishes, find_user, image};
use crate::transfer::{Pull, pull};
use crate::{signals, terminal};

const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";
/// Runtimes whose options are runc's.
const RUNC_TYPES: &str = "io.containerd.runc.";
/// The label by which containerd's clients keep how a container wants to be ended.
pub(in crate::commands) const STOP_SIGNAL: &str = "io.containerd.image.config.stop-signal";
/// How long the label of a container may be with its name; the daemon refuses longer ones.
const LONGEST_LABEL: usize = 4096;

/// What the file system tells of a container.
struct Ground {
    /// Where the spec says the file system is.
    rootfs: PathBuf,
    command: Vec<String>,
    env: Vec<String>,
    cwd: PathBuf,
    user: User,
}

impl Run {
    /// Makes the record of a container on a folder.
    ///
    /// # Errors
    /// A wish that cannot be met, or the daemon's refusal.
    pub(super) fn on_folder(&self, id: &str, namespace: &str, folder: &Path) -> Result<Container> {
        if self.words.is_empty() {
            return Err(Error::said("a command is missing, such as /bin/sh"));
        }
        let rootfs = spec::rootfs(folder)?;
        let user = match &self.user {
            Some(user) => find_user(&rootfs, user)?,
            None => User::default(),
        };
        let said = self.entrypoint.as_deref();
        let ground = Ground {
            rootfs,
            command: image::command(&Config::default(), said, &self.words)?,
            env: Vec::new(),
            cwd: self.cwd.clone().unwrap_or_else(|| PathBuf::from("/")),
            user,
        };
        self.record(id, namespace, ground)
    }

    /// Makes an image ready and a container on it; answers how its file system is mounted.
    ///
    /// # Errors
    /// There is no such image, a wish that cannot be met, or the daemon's refusal. Nothing is left
    /// then.
    pub(super) async fn on_image(
        &self,
        id: &str,
        name: &str,
        words: &[String],
        connection: &Connection,
    ) -> Result<Vec<Mount>> {
        // What cannot be met whatever the image is, is said before anything is done.
        self.runtime_options()?;
        if self.pull == Fetch::Missing && images::find(connection, name).await?.is_none() {
            self.fetch(name, connection).await?;
        }
        under_lease(connection, async |lease| {
            let progress = Progress::new(self.quiet);
            let choice = Choice {
                name,
                platform: self.platform.as_ref(),
                snapshotter: self.snapshotter.as_deref(),
            };
            let making = ready::make(lease, id, choice, &progress);
            let ready = signals::unless_interrupted(making).await?;
            let created = self.create_on(id, words, &ready, lease).await;
            if created.is_err() {
                // What made it fail says more than that it cannot be undone, which the end of the
                // lease does as well.
                let _ = snapshot::remove(lease.connection(), &ready.snapshotter, id).await;
            }
            created.map(|()| ready.mounts)
        })
        .await
    }

    async fn fetch(&self, name: &str, connection: &Connection) -> Result<()> {
        let name = Name::parse(name)?;
        let registry = Registry::open(&name, &Options::default())?;
        let wanted = Pull {
            name: &name,
            registry: &registry,
            platform: self.platform.clone(),
            all_platforms: false,
            unpack: Some(self.snapshotter.clone()),
            parallel: 3,
        };
        let mut signals = signals::listen()?;
        let pulled = pull(
            connection,
            &wanted,
            &Progress::new(self.quiet),
            &mut signals,
        )
        .await;
        pulled.map(drop)
    }

    async fn create_on(
        &self,
        id: &str,
        words: &[String],
        ready: &Ready,
        lease: &Lease,
    ) -> Result<()> {
        let connection = lease.connection();
        let config = &ready.config;
        let command = image::command(config, self.entrypoint.as_deref(), words)?;
        let user = self.user.as_deref().or_else(|| config.user().as_deref());
        // Of root, too, the groups are known in the image only.
        let user = user.filter(|user| !user.is_empty()).unwrap_or("0");
        let user = inside::look(&ready.mounts, |root| find_user(root, user))?;
        let ground = Ground {
            // Where the shim mounts the snapshot, in the bundle.
            rootfs: PathBuf::from("rootfs"),
            command,
            env: config.env().clone().unwrap_or_default(),
            cwd: self.cwd.clone().unwrap_or_else(|| image::cwd(config)),
            user,
        };
        let mut container = self.record(id, connection.namespace(), ground)?;
        container.image.clone_from(&ready.name);
        container.snapshotter.clone_from(&ready.snapshotter);
        id.clone_into(&mut container.snapshot_key);
        for (name, value) in image_labels(config) {
            container.labels.entry(name).or_insert(value);
        }
        create(connection, container).await
    }

    fn record(&self, id: &str, namespace: &str, ground: Ground) -> Result<Container> {
        let mut labels = BTreeMap::new();
        for label in &self.label {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            labels.insert(name.to_owned(), value.to_owned());
        }
        let built = spec::build(Wishes {
            id,
            namespace,
            rootfs: &ground.rootfs,
            command: &ground.command,
            base_env: &ground.env,
            env: &self.env,
            cwd: &ground.cwd,
            user: ground.user,
            hostname: self.hostname.as_deref(),
            terminal: self.tty,
            console: terminal::size().filter(|_| self.tty),
            read_only: self.read_only,
            network: self.net,
            mounts: [&self.mount[..], &self.volume[..]].concat(),
            cap_add: &self.cap_add,
            cap_drop: &self.cap_drop,
            memory: self.memory,
            cpus: self.cpus,
            pids_limit: self.pids_limit,
        })?;
        let json = serde_json::to_vec(&built).map_err(|error| Error::said(error.to_string()))?;
        Ok(Container {
            id: id.to_owned(),
            labels,
            runtime: Some(Runtime {
                name: self.runtime.clone(),
                options: self.runtime_options()?,
            }),
            spec: Some(Any {
                type_url: spec::SPEC_TYPE.to_owned(),
                value: json,
            }),
            ..Container::default()
        })
    }

    fn runtime_options(&self) -> Result<Option<Any>> {
        if self.runc_binary.is_none() && !self.systemd_cgroup {
            return Ok(None);
        }
        let is_runc = self.runtime.starts_with(RUNC_TYPES)
            || self
                .runtime
                .rsplit('/')
                .next()
                .is_some_and(|name| name.contains("-runc-"));
        if !is_runc {
            return Err(Error::said(format!(
                "--runc-binary and --systemd-cgroup mean nothing to {}",
                self.runtime
            )));
        }
        let options = runc_options::Options {
            binary_name: self.runc_binary.clone().unwrap_or_default(),
            systemd_cgroup: self.systemd_cgroup,
            ..runc_options::Options::default()
        };
        Ok(Some(Any {
            type_url: RUNC_OPTIONS.to_owned(),
            value: options.encode_to_vec(),
        }))
    }
}

/// The labels that the image gives its containers, those that a daemon would refuse left out, and
/// the signal that ends them.
fn image_labels(config: &Config) -> BTreeMap<String, String> {
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in config.labels().iter().flatten() {
        // The namespace of names is the daemon's own.
        let is_own = name.starts_with("containerd.io/") || name.starts_with("io.containerd.");
        if !is_own && !name.is_empty() && name.len() + value.len() <= LONGEST_LABEL {
            labels.insert(name.clone(), value.clone());
        }
    }
    let signal = config
        .stop_signal()
        .clone()
        .filter(|signal| !signal.is_empty());
    let signal = signal.unwrap_or_else(|| "SIGTERM".to_owned());
    labels.insert(STOP_SIGNAL.to_owned(), signal);
    labels
}

/// Makes the record.
///
/// # Errors
/// There is such a container already, or the daemon's refusal.
pub(super) async fn create(connection: &Connection, container: Container) -> Result<()> {
    let id = container.id.clone();
    let request = CreateContainerRequest {
        container: Some(container),
    };
    let created = connection.containers().create(request).await;
    if let Err(status) = &created
        && status.code() == tonic::Code::AlreadyExists
    {
        return Err(Error::said(format!(
            "there is a container {id} already (wherry rm {id} removes it)"
        )));
    }
    created.map(drop).about(format!("container {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_an_image_do_not_reach_the_collector() {
        let mut config = Config::default();
        let pairs = [
            ("a", "b"),
            ("containerd.io/gc.root", "x"),
            ("long", &"x".repeat(5000)),
        ];
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        config.set_labels(Some(pairs.into()));
        config.set_stop_signal(Some("SIGQUIT".to_owned()));
        let labels = image_labels(&config);
        let names: Vec<&str> = labels.keys().map(String::as_str).collect();
        assert_eq!(names, ["a", STOP_SIGNAL]);
        assert_eq!(labels[STOP_SIGNAL], "SIGQUIT");
        assert_eq!(image_labels(&Config::default())[STOP_SIGNAL], "SIGTERM");
    }
}
