//! Tests of whole cgroups.
