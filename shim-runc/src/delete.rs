//! delete
/// x
pub fn delete(_f: crate::flavor::Flavor, _g: &shim_common::cli::Flags) -> Result<Vec<u8>, String> {
    Ok(Vec::new())
}
