//! supervisor

/// Serves until the shim is done.
///
/// # Errors
/// What kept it from serving.
pub fn serve(args: crate::manager::ServeArgs) -> Result<(), String> {
    drop(args);
    Err("not yet".to_owned())
}
