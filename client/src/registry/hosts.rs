//! Which hosts serve the images of a registry: mirrors in their order, then the server.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use reqwest::Url;

use super::hosts_file::{self, Capabilities, Entry};
use super::name::is_loopback;
use crate::error::{Context, Error, Result};
use crate::output;

/// Where containerd's documentation puts the folders of hosts.
pub(super) const DEFAULT_DIR: &str = "/etc/containerd/certs.d";
const HUB: &str = "docker.io";
const HUB_SERVER: &str = "registry-1.docker.io";

/// A host that serves images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The root of its API, such as `https://mirror.example:5000/v2`.
    pub(super) url: Url,
    /// What it may be asked for.
    pub(super) capabilities: Capabilities,
    /// Files with certificates to trust beside the system's.
    pub(super) ca: Vec<PathBuf>,
    /// Files with our own certificate and its key.
    pub(super) client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Whether any certificate will do.
    pub(super) skip_verify: bool,
    /// Headers of each request.
    pub(super) headers: reqwest::header::HeaderMap,
    /// The registry it is asked for, if it is not that registry itself: it may serve several.
    pub(super) mirrors: Option<String>,
}

impl Endpoint {
    /// Host and port, as people write them.
    pub(super) fn name(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

/// Finds the hosts of a registry, in the order in which they are to be asked.
///
/// # Errors
/// Its `hosts.toml` cannot be read, or is wrong.
pub(super) fn find(registry: &str, dir: &Path, plain_http: bool) -> Result<Vec<Endpoint>> {
    let (server, mirrors) = match file_of(registry, dir)? {
        Some((file, text)) => {
            let found = hosts_file::read(&file, &text).map_err(Error::said)?;
            for warning in &found.warnings {
                output::complain(warning);
            }
            (found.server, found.mirrors)
        }
        None => (Entry::default(), Vec::new()),
    };
    let mut url = match server.url.clone() {
        Some(url) => url,
        None => default_server(registry)?,
    };
    // Of a URL with a host, http can be made of https and back.
    if plain_http && url.set_scheme("http").is_err() {
        return Err(Error::said(format!("{url} cannot be asked over HTTP")));
    }
    let server = endpoint(registry, url, server);
    let mirrors = mirrors
        .into_iter()
        .filter_map(|mirror| Some(endpoint(registry, mirror.url.clone()?, mirror)));
    Ok(mirrors.chain([server]).collect())
}

fn endpoint(registry: &str, url: Url, entry: Entry) -> Endpoint {
    let mut endpoint = Endpoint {
        url,
        capabilities: entry.capabilities,
        ca: entry.ca,
        client: entry.client,
        skip_verify: entry.skip_verify,
        headers: entry.headers,
        mirrors: None,
    };
    let name = endpoint.name();
    let is_itself = name == registry || registry == HUB && name == HUB_SERVER;
    endpoint.mirrors = (!is_itself).then(|| registry.to_owned());
    endpoint
}

/// The server that a registry's name stands for.
fn default_server(registry: &str) -> Result<Url> {
    let host = if registry == HUB {
        HUB_SERVER
    } else {
        registry
    };
    let url = hosts_file::address(host).map_err(Error::said)?;
    Ok(hosts_file::api(url, false))
}

/// The file about a registry, and its text. As with containerd, a port is written `_PORT_` or
/// `:PORT` in a folder's name, and `_default` is about all that have no folder.
fn file_of(registry: &str, dir: &Path) -> Result<Option<(PathBuf, String)>> {
    let mut folders = vec![registry.to_owned(), "_default".to_owned()];
    if let Some((host, port)) = registry.rsplit_once(':') {
        folders.insert(0, format!("{host}_{port}_"));
    }
    for folder in folders {
        let folder = dir.join(folder);
        if !folder.is_dir() {
            continue;
        }
        let file = folder.join("hosts.toml");
        return match fs::read_to_string(&file) {
            Ok(text) => Ok(Some((file, text))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).about(file.display().to_string()),
        };
    }
    Ok(None)
}

/// Whether an address is on this machine.
pub(super) fn is_local(url: &Url) -> bool {
    url.host_str().is_some_and(is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(registry: &str, dir: &Path, plain_http: bool) -> Vec<String> {
        let found = find(registry, dir, plain_http).unwrap();
        found.iter().map(|host| host.url.to_string()).collect()
    }

    #[test]
    fn without_a_file_the_registry_itself_is_asked() {
        let dir = Path::new("/nothing-there");
        assert_eq!(
            urls("docker.io", dir, false),
            ["https://registry-1.docker.io/v2"]
        );
        assert_eq!(urls("quay.io:444", dir, false), ["https://quay.io:444/v2"]);
        assert_eq!(urls("quay.io", dir, true), ["http://quay.io/v2"]);
        assert_eq!(
            urls("127.0.0.1:5000", dir, false),
            ["http://127.0.0.1:5000/v2"]
        );
        assert_eq!(find("docker.io", dir, false).unwrap()[0].mirrors, None);
    }

    #[test]
    fn the_folder_of_the_registry_counts_and_else_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let write = |folder: &str, text: &str| {
            fs::create_dir(dir.path().join(folder)).unwrap();
            fs::write(dir.path().join(folder).join("hosts.toml"), text).unwrap();
        };
        write("_default", "[host.\"https://all.example\"]");
        write("quay.io:444", "[host.\"https://port.example\"]");
        let got = urls("quay.io", dir.path(), false);
        assert_eq!(got, ["https://all.example/v2", "https://quay.io/v2"]);
        let got = find("quay.io:444", dir.path(), false).unwrap();
        assert_eq!(got[0].name(), "port.example");
        assert_eq!(got[0].mirrors.as_deref(), Some("quay.io:444"));
        assert_eq!(got[1].mirrors, None);
        write("quay.io_444_", "server = \"http://under.example\"");
        let got = find("quay.io:444", dir.path(), false).unwrap();
        assert_eq!(got[0].url.as_str(), "http://under.example/v2");
        assert_eq!(got[0].mirrors.as_deref(), Some("quay.io:444"));
        write("bad.example", "server = 5");
        let said = find("bad.example", dir.path(), false)
            .unwrap_err()
            .to_string();
        assert!(said.contains("bad.example/hosts.toml: server"), "{said}");
    }
}
