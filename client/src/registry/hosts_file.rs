//! `hosts.toml`, containerd's description of the hosts that serve a registry's images.
//!
//! Mirrors count in the order in which the file has them. What is not known is warned of, since
//! newer containerds know more; what is known and wrong is an error.

use std::path::{Path, PathBuf};

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::name::is_loopback;

/// What a host may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Capabilities {
    /// Blobs and manifests by digest.
    pub(super) pull: bool,
    /// What a tag means.
    pub(super) resolve: bool,
    /// New images.
    pub(super) push: bool,
}

impl Capabilities {
    pub(super) const ALL: Self = Self {
        pull: true,
        resolve: true,
        push: true,
    };
}

/// What the file says of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The root of its API. The server's may be left out.
    pub(super) url: Option<Url>,
    pub(super) capabilities: Capabilities,
    /// Files with certificates to trust beside the system's.
    pub(super) ca: Vec<PathBuf>,
    /// Files with a certificate of ours, and its key where that is in a file of its own.
    pub(super) client: Vec<(PathBuf, Option<PathBuf>)>,
    /// Whether any certificate will do.
    pub(super) skip_verify: bool,
    /// Headers of each request.
    pub(super) headers: HeaderMap,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            url: None,
            capabilities: Capabilities::ALL,
            ca: Vec::new(),
            client: Vec::new(),
            skip_verify: false,
            headers: HeaderMap::new(),
        }
    }
}

/// The whole file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HostsFile {
    /// The registry itself.
    pub(super) server: Entry,
    /// What is asked before it.
    pub(super) mirrors: Vec<Entry>,
    /// What has no effect, each with the file's name.
    pub(super) warnings: Vec<String>,
}

/// Reads the text of a file; relative paths in it start in its folder.
///
/// # Errors
/// Everything that is wrong with it, a line each.
pub(super) fn read(file: &Path, text: &str) -> Result<HostsFile, String> {
    let mut reader = Reader {
        file,
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    let table = match DeTable::parse(text) {
        Ok(table) => table,
        Err(error) => return Err(format!("{}: {}", file.display(), error.message())),
    };
    let mut found = HostsFile::default();
    let mut mirrors = Vec::new();
    for (key, value) in table.get_ref() {
        match (key.get_ref().as_ref(), value.get_ref()) {
            ("server", DeValue::String(address)) => {
                found.server.url = reader.address("server", address);
            }
            ("server", _) => reader.wrong("server", "is an address in quotes"),
            ("host", DeValue::Table(hosts)) => mirrors.extend(hosts),
            ("host", _) => reader.wrong("host", "is a table such as [host.\"https://mirror\"]"),
            _ => {}
        }
    }
    let (server, override_path) = reader.entry("", table.get_ref(), &["server", "host"]);
    found.server = Entry {
        url: found.server.url.map(|url| api(url, override_path)),
        ..server
    };
    mirrors.sort_by_key(|(key, _)| key.span().start);
    for (address, value) in mirrors {
        let path = format!("host.{:?}", address.get_ref());
        let DeValue::Table(table) = value.get_ref() else {
            reader.wrong(&path, "is a table");
            continue;
        };
        let url = reader.address(&path, address.get_ref());
        let (mirror, override_path) = reader.entry(&format!("{path}."), table, &[]);
        let url = url.map(|url| api(url, override_path));
        found.mirrors.push(Entry { url, ..mirror });
    }
    found.warnings = reader.warnings;
    if reader.errors.is_empty() {
        Ok(found)
    } else {
        Err(reader.errors.join("\n"))
    }
}

/// The root of the API at an address: its path and `/v2`, unless the address says that it is whole.
pub(super) fn api(mut url: Url, is_whole: bool) -> Url {
    let path = url.path().trim_end_matches('/').to_owned();
    if is_whole || path.ends_with("/v2") {
        url.set_path(&path);
    } else {
        url.set_path(&format!("{path}/v2"));
    }
    url
}

/// Reads an address; one without a scheme is HTTPS, on this machine HTTP.
///
/// # Errors
/// What is wrong with it.
pub(super) fn address(text: &str) -> Result<Url, String> {
    let whole = if text.contains("://") {
        text.to_owned()
    } else {
        let host = text.split('/').next().unwrap_or(text);
        let scheme = if is_loopback(host) { "http" } else { "https" };
        format!("{scheme}://{text}")
    };
    let url = Url::parse(&whole).map_err(|fault| format!("{text:?}: {fault}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!(
            "{text:?} is neither http:// nor https:// and a host"
        ));
    }
    if url.query().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(format!(
            "{:?}: only a host, a port and a path can be there",
            url.host_str().unwrap_or_default()
        ));
    }
    Ok(url)
}

struct Reader<'f> {
    file: &'f Path,
    errors: Vec<String>,
    warnings: Vec<String>,
}

type Table<'t> = DeTable<'t>;

impl Reader<'_> {
    fn wrong(&mut self, key: &str, what: &str) {
        let file = self.file.display();
        self.errors.push(format!("{file}: {key} {what}"));
    }

    fn address(&mut self, key: &str, text: &str) -> Option<Url> {
        address(text)
            .map_err(|fault| {
                let file = self.file.display();
                self.errors.push(format!("{file}: {key}: {fault}"));
            })
            .ok()
    }

    /// Reads what a host's table says, but for `others`; answers also whether its path is whole.
    fn entry(&mut self, path: &str, table: &Table<'_>, others: &[&str]) -> (Entry, bool) {
        let mut entry = Entry::default();
        let mut override_path = false;
        for (key, value) in table {
            let word = key.get_ref().as_ref();
            let key = format!("{path}{word}");
            let value = value.get_ref();
            match word {
                "capabilities" => entry.capabilities = self.capabilities(&key, value),
                "ca" => entry.ca = self.files(&key, value),
                "client" => entry.client = self.pairs(&key, value),
                "skip_verify" => entry.skip_verify = self.boolean(&key, value),
                "override_path" => override_path = self.boolean(&key, value),
                "header" => entry.headers = self.headers(&key, value),
                word if others.contains(&word) => {}
                _ => {
                    let file = self.file.display();
                    self.warnings
                        .push(format!("{file}: {key} is not known and has no effect"));
                }
            }
        }
        (entry, override_path)
    }

    fn boolean(&mut self, key: &str, value: &DeValue<'_>) -> bool {
        value.as_bool().unwrap_or_else(|| {
            self.wrong(key, "is true or false");
            false
        })
    }

    fn capabilities(&mut self, key: &str, value: &DeValue<'_>) -> Capabilities {
        let mut can = Capabilities {
            pull: false,
            resolve: false,
            push: false,
        };
        for word in self.texts(key, value) {
            match word.as_str() {
                "pull" => can.pull = true,
                "resolve" => can.resolve = true,
                "push" => can.push = true,
                // Of newer files; nothing here asks for referrers.
                "referrers" => {}
                other => {
                    let what = format!("has {other:?}; there are pull, resolve and push");
                    self.wrong(key, &what);
                }
            }
        }
        can
    }

    /// One text, or a list of them.
    fn texts(&mut self, key: &str, value: &DeValue<'_>) -> Vec<String> {
        let text = |item: &DeValue<'_>| item.as_str().map(str::to_owned);
        let read = match value {
            DeValue::Array(items) => items.iter().map(|item| text(item.get_ref())).collect(),
            one => text(one).map(|one| vec![one]),
        };
        read.unwrap_or_else(|| {
            self.wrong(key, "is a text in quotes or a list of them");
            Vec::new()
        })
    }

    fn files(&mut self, key: &str, value: &DeValue<'_>) -> Vec<PathBuf> {
        let names = self.texts(key, value);
        names.iter().map(|name| self.resolved(name)).collect()
    }

    fn resolved(&self, name: &str) -> PathBuf {
        self.file.with_file_name(name)
    }

    /// A file, a list of files, or a list of pairs of files.
    fn pairs(&mut self, key: &str, value: &DeValue<'_>) -> Vec<(PathBuf, Option<PathBuf>)> {
        let is_pair = |item: &Spanned<DeValue<'_>>| item.get_ref().is_array();
        match value {
            DeValue::Array(items) if items.iter().any(is_pair) => {
                let mut pairs = Vec::new();
                for item in items {
                    match &self.files(key, item.get_ref())[..] {
                        [both] => pairs.push((both.clone(), None)),
                        [certificate, private] => {
                            pairs.push((certificate.clone(), Some(private.clone())));
                        }
                        _ => self.wrong(key, "has pairs of a certificate and its key"),
                    }
                }
                pairs
            }
            _ => self
                .files(key, value)
                .into_iter()
                .map(|file| (file, None))
                .collect(),
        }
    }

    fn headers(&mut self, key: &str, value: &DeValue<'_>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let DeValue::Table(table) = value else {
            self.wrong(key, "is a table");
            return headers;
        };
        for (name, values) in table {
            let key = format!("{key}.{}", name.get_ref());
            let Ok(header) = HeaderName::try_from(name.get_ref().as_ref()) else {
                self.wrong(&key, "is no name of a header");
                continue;
            };
            // A value may be a secret: no message has it.
            for text in self.texts(&key, values.get_ref()) {
                match HeaderValue::try_from(text) {
                    Ok(mut value) => {
                        value.set_sensitive(true);
                        headers.append(header.clone(), value);
                    }
                    Err(_) => self.wrong(&key, "has characters that no header can have"),
                }
            }
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<HostsFile, String> {
        read(Path::new("/certs.d/quay.io/hosts.toml"), text)
    }

    fn roots(file: &HostsFile) -> Vec<String> {
        let url = |entry: &Entry| entry.url.as_ref().unwrap().to_string();
        file.mirrors.iter().map(url).collect()
    }

    #[test]
    fn everything_is_read_and_mirrors_keep_their_order() {
        let file = parse(
            r#"
            server = "https://quay.io"
            ca = "server.pem"
            [host."https://z.example:5000/cache"]
              capabilities = ["pull", "resolve"]
              ca = ["a.pem", "/b.pem"]
              client = [["c.crt", "c.key"], ["both.pem"]]
              header.X-One = "1"
              header.x-two = ["2", "3"]
            [host."http://a.example/base"]
              override_path = true
              skip_verify = true
            [host."127.0.0.1:5000"]
              client = ["one.pem", "two.pem"]
            "#,
        )
        .unwrap();
        assert_eq!(file.server.url.unwrap().as_str(), "https://quay.io/v2");
        assert_eq!(file.server.ca, [Path::new("/certs.d/quay.io/server.pem")]);
        assert_eq!(file.server.capabilities, Capabilities::ALL);
        let file = HostsFile {
            server: Entry::default(),
            ..file
        };
        assert_eq!(
            roots(&file),
            [
                "https://z.example:5000/cache/v2",
                "http://a.example/base",
                "http://127.0.0.1:5000/v2",
            ]
        );
        let [z, a, local] = &file.mirrors[..] else {
            panic!()
        };
        assert!(z.capabilities.pull && z.capabilities.resolve && !z.capabilities.push);
        assert_eq!(z.ca[1], Path::new("/b.pem"));
        assert_eq!(
            z.client[0].1.as_deref(),
            Some(Path::new("/certs.d/quay.io/c.key"))
        );
        assert_eq!(z.client[1].1, None);
        assert_eq!(z.headers.get_all("x-two").iter().count(), 2);
        assert!(a.skip_verify && !z.skip_verify);
        assert_eq!(local.client.len(), 2);
        assert!(file.warnings.is_empty());
    }

    #[test]
    fn what_is_unknown_is_warned_of_and_what_is_wrong_is_told_whole() {
        let file = parse("colour = 1\n[host.a]\ndial_timeout = \"1s\"").unwrap();
        assert_eq!(
            file.warnings,
            [
                "/certs.d/quay.io/hosts.toml: colour is not known and has no effect",
                "/certs.d/quay.io/hosts.toml: host.\"a\".dial_timeout is not known and has no effect"
            ]
        );
        let said = parse(
            "server = 1\nskip_verify = \"yes\"\ncapabilities = [\"fly\"]\n\
             [host.\"ftp://x\"]\nheader.\"a b\" = \"\"\n[host.\"https://u:secret@y\"]",
        )
        .unwrap_err();
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 6, "{said}");
        for key in ["server", "skip_verify", "capabilities", "host.\"ftp://x\""] {
            let start = format!("/certs.d/quay.io/hosts.toml: {key}");
            assert!(
                lines.iter().any(|line| line.starts_with(&start)),
                "{key}: {said}"
            );
        }
        assert!(parse("a = ").unwrap_err().contains("hosts.toml: "));
    }
}
