//! Manifests, indexes and configurations: whatever is in them, they are read or refused in one
//! line. The first byte chooses what the document is said to be.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some((choice, document)) = bytes.split_first() {
        parts::images::read(*choice, document);
    }
});
