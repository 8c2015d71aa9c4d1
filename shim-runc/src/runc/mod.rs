//! runc
