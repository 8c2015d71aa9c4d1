//! The option messages of the runc shims and the type names they travel under. Decoding them
//! into one plain structure is the runtime driver's: only it knows what each option does.

pub use containerd_shim_protos::shim::oci::{CheckpointOptions, Options};

/// Type name of [`Options`].
pub const RUNC_OPTIONS: &str = "containerd.runc.v1.Options";
/// Type name of [`CheckpointOptions`].
pub const CHECKPOINT_OPTIONS: &str = "containerd.runc.v1.CheckpointOptions";
/// Type name of the generic options (a TOML file or body) that CRI sends for runtime names it
/// has no options type for.
pub const GENERIC_OPTIONS: &str = "runtimeoptions.v1.Options";

/// The message name in a type URL: what follows the last slash. Go's typeurl writes bare names,
/// other clients put a prefix such as `type.googleapis.com/` in front.
pub fn type_name(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or(type_url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_name_is_what_follows_the_last_slash() {
        for url in [
            RUNC_OPTIONS,
            "type.googleapis.com/containerd.runc.v1.Options",
        ] {
            assert_eq!(type_name(url), RUNC_OPTIONS);
        }
        assert_eq!(type_name(""), "");
    }
}
