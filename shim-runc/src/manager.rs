//! manager
/// x
pub struct ServeArgs { /// x
pub flavor: crate::flavor::Flavor, /// x
pub namespace: String, /// x
pub id: String, /// x
pub address: String, /// x
pub debug: bool, /// x
pub listener: std::os::fd::OwnedFd }
