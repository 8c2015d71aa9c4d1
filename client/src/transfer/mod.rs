//! Images on their way between a registry and a daemon.

mod blob;
mod pull;
mod push;

use crate::error::{Error, Result};
use crate::registry::Name;
use crate::signals::{self, Signals};

pub(crate) use pull::{Pull, pull};
pub(crate) use push::{Push, push};

/// The label that says from which repositories of a registry a blob came.
const SOURCE: &str = "containerd.io/distribution.source.";

/// The label of a blob that came from, or is in, the repository of a name, added to what its value
/// says already.
fn source_label(name: &Name, known: Option<&String>) -> (String, String) {
    let mut repositories: Vec<&str> = known.map_or(Vec::new(), |known| known.split(',').collect());
    repositories.retain(|repository| !repository.is_empty());
    if !repositories.contains(&name.repository()) {
        repositories.push(name.repository());
    }
    repositories.sort_unstable();
    (source_key(name), repositories.join(","))
}

fn source_key(name: &Name) -> String {
    format!("{SOURCE}{}", name.registry())
}

/// Carries out work until somebody asks for an end; then it is dropped where it is.
async fn unless_asked_to_end<T>(
    signals: &mut Signals,
    what: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            signal = signals.next() => {
                if signals::is_an_end(signal?) {
                    return Err(Error::said(format!("{what}: asked to end")));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_collected() {
        let name = Name::parse("quay.io:1/b/c").unwrap();
        let label = |known: &str| {
            let (key, value) = source_label(&name, Some(&known.to_owned()));
            assert_eq!(key, "containerd.io/distribution.source.quay.io:1");
            value
        };
        assert_eq!(label(""), "b/c");
        assert_eq!(label("b/c"), "b/c");
        assert_eq!(label("z,a"), "a,b/c,z");
        assert_eq!(source_label(&name, None).1, "b/c");
    }
}
