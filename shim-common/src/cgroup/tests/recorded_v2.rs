//! v2 from recorded files.
