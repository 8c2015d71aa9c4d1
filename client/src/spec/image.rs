//! How an image wants to be run, and what the command line makes of it.

use std::path::{Path, PathBuf};

use oci_spec::image::Config;

use crate::error::{Error, Result};

/// The words of the process. A said entry point replaces the image's, and with it the image's
/// words; said words replace the image's.
///
/// # Errors
/// There are none.
pub(crate) fn command(
    config: &Config,
    entrypoint: Option<&str>,
    words: &[String],
) -> Result<Vec<String>> {
    let of_image = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let (mut command, own) = match entrypoint {
        Some(said) => (vec![said.to_owned()], Vec::new()),
        None => (of_image(config.entrypoint()), of_image(config.cmd())),
    };
    // An empty entry point is a wish for none.
    command.retain(|word| entrypoint.is_none() || !word.is_empty());
    command.extend(if words.is_empty() {
        own
    } else {
        words.to_vec()
    });
    if command.is_empty() {
        return Err(Error::said(
            "the image does not say which command to run; name one, such as /bin/sh",
        ));
    }
    Ok(command)
}

/// The working directory: an absolute one, whatever the image says.
pub(crate) fn cwd(config: &Config) -> PathBuf {
    Path::new("/").join(config.working_dir().as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn said_words_replace_the_images() {
        let mut config = Config::default();
        let words = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        command(&config, None, &[]).unwrap_err();
        assert_eq!(command(&config, None, &words("a b")).unwrap(), ["a", "b"]);
        config.set_cmd(Some(words("cmd c")));
        assert_eq!(command(&config, None, &[]).unwrap(), ["cmd", "c"]);
        config.set_entrypoint(Some(words("entry e")));
        assert_eq!(
            command(&config, None, &[]).unwrap(),
            ["entry", "e", "cmd", "c"]
        );
        assert_eq!(
            command(&config, None, &words("x")).unwrap(),
            ["entry", "e", "x"]
        );
        assert_eq!(command(&config, Some("own"), &[]).unwrap(), ["own"]);
        assert_eq!(
            command(&config, Some("own"), &words("x")).unwrap(),
            ["own", "x"]
        );
        assert_eq!(command(&config, Some(""), &words("x")).unwrap(), ["x"]);
        assert_eq!(cwd(&config), Path::new("/"));
        config.set_working_dir(Some("a".to_owned()));
        assert_eq!(cwd(&config), Path::new("/a"));
    }
}
