//! The `lowerdir=` option of an overlay: its layers, one by one and together. Pure.

use std::path::PathBuf;

use super::options::Options;

/// A lower layer as the `lowerdir=` option names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    /// With the backslashes that escape a colon or comma in the option.
    pub(super) escaped: String,
    /// After a double colon: holds file data only, no names.
    pub(super) data_only: bool,
}

impl Layer {
    pub(super) fn key(&self) -> &'static str {
        if self.data_only {
            "datadir+"
        } else {
            "lowerdir+"
        }
    }

    pub(super) fn path(&self) -> PathBuf {
        PathBuf::from(unescape(&self.escaped))
    }
}

/// The options without `lowerdir=`, and its layers; `None` unless there is exactly one.
pub(super) fn split(options: &Options) -> Option<(Vec<&str>, Vec<Layer>)> {
    let (lower, others): (Vec<&str>, Vec<&str>) = options
        .data
        .iter()
        .map(String::as_str)
        .partition(|option| option.starts_with("lowerdir="));
    let [lower] = lower.as_slice() else {
        return None;
    };
    Some((others, parse_layers(lower.strip_prefix("lowerdir=")?)))
}

/// Splits at the colons that no backslash escapes; an empty piece makes the next data-only.
pub(super) fn parse_layers(text: &str) -> Vec<Layer> {
    let mut layers = Vec::new();
    let (mut escaped, mut data_only) = (String::new(), false);
    let mut characters = text.chars();
    loop {
        match characters.next() {
            Some('\\') => {
                escaped.push('\\');
                escaped.extend(characters.next());
            }
            Some(':') if escaped.is_empty() => data_only = true,
            Some(':') => {
                layers.push(Layer {
                    escaped: std::mem::take(&mut escaped),
                    data_only,
                });
                data_only = false;
            }
            Some(other) => escaped.push(other),
            None => {
                if !escaped.is_empty() {
                    layers.push(Layer { escaped, data_only });
                }
                return layers;
            }
        }
    }
}

/// The layers as one `lowerdir=` value; what [`parse_layers`] has split.
pub(super) fn join_layers(layers: &[Layer]) -> String {
    let mut text = String::new();
    for layer in layers {
        if !text.is_empty() {
            text.push_str(if layer.data_only { "::" } else { ":" });
        }
        text.push_str(&layer.escaped);
    }
    text
}

/// Takes the backslashes off that escape a character.
pub(super) fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(if character == '\\' {
            characters.next().unwrap_or('\\')
        } else {
            character
        });
    }
    plain
}

/// The longest folder, with its closing slash, that all layers are in; escaped like them. `None`
/// when that is the root or nothing: naming layers from there saves nothing.
pub(super) fn common_folder(layers: &[Layer]) -> Option<String> {
    let (first, rest) = layers.split_first()?;
    let mut common = first.escaped.rfind('/')? + 1;
    for layer in rest {
        let same = first.escaped[..common]
            .bytes()
            .zip(layer.escaped.bytes())
            .take_while(|(ours, theirs)| ours == theirs)
            .count();
        common = first.escaped.as_bytes()[..same]
            .iter()
            .rposition(|byte| *byte == b'/')?
            + 1;
    }
    let usable = first.escaped.starts_with('/')
        && common > 1
        && layers.iter().all(|layer| layer.escaped.len() > common);
    usable.then(|| first.escaped[..common].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_and_data_only_layers_are_understood() {
        let layers = parse_layers("/a\\:b:/c\\\\::/d");
        let paths: Vec<_> = layers.iter().map(Layer::path).collect();
        assert_eq!(
            paths,
            [
                PathBuf::from("/a:b"),
                PathBuf::from("/c\\"),
                PathBuf::from("/d")
            ]
        );
        let data_only: Vec<_> = layers.iter().map(|layer| layer.data_only).collect();
        assert_eq!(data_only, [false, false, true]);
    }

    #[test]
    fn the_common_folder_is_cut_at_a_slash_and_is_no_layer_itself() {
        let common = |text| common_folder(&parse_layers(text));
        assert_eq!(common("/x/s/12/fs:/x/s/13/fs").as_deref(), Some("/x/s/"));
        assert_eq!(common("/x/s/1:/x/s/1").as_deref(), Some("/x/s/"));
        assert_eq!(common("/x/s:/x/s/1").as_deref(), Some("/x/"));
        for none in ["/x:/y", "x/a:x/b", "", "/x/s/:/x/s/1", "/x/a:y"] {
            assert_eq!(common(none), None, "{none}");
        }
    }

    proptest! {
        #[test]
        fn splitting_and_joining_gives_the_same_layers(
            names in prop::collection::vec(("(/[a-c:\\\\é]{1,3}){1,4}", any::<bool>()), 1..8)
        ) {
            let layers: Vec<_> = names
                .iter()
                .enumerate()
                .map(|(index, (name, data_only))| Layer {
                    escaped: name.replace('\\', "\\\\").replace(':', "\\:"),
                    data_only: *data_only && index > 0,
                })
                .collect();
            let back = parse_layers(&join_layers(&layers));
            prop_assert_eq!(&back, &layers);
            for (layer, (name, _)) in back.iter().zip(&names) {
                prop_assert_eq!(layer.path(), PathBuf::from(name));
            }
            if let Some(common) = common_folder(&layers) {
                prop_assert!(common.ends_with('/') && common.starts_with('/'));
                prop_assert!(layers.iter().all(|layer| layer.escaped.starts_with(&common)));
            }
        }
    }
}
