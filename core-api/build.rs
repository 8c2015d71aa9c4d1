//! Generates messages, servers and clients from `proto/`, without any program but this one:
//! `protox` parses, `tonic-prost-build` writes. Maps are ordered, so that an encoded record is
//! the same bytes each time it is stored.

use std::path::{Path, PathBuf};

fn proto_files(dir: &Path, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            proto_files(&path, found)?;
        } else if path.extension().is_some_and(|end| end == "proto") {
            found.push(path);
        }
    }
    Ok(())
}

/// The table of all calls, as Rust text.
fn calls(files: &[prost_types::FileDescriptorProto]) -> String {
    let mut rows = String::from("&[\n");
    for file in files {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                let kind = match (method.client_streaming(), method.server_streaming()) {
                    (false, false) => "Unary",
                    (false, true) => "ServerStream",
                    (true, false) => "ClientStream",
                    (true, true) => "BidiStream",
                };
                rows += &format!("    Call {{ path: {path:?}, kind: Kind::{kind} }},\n");
            }
        }
    }
    rows + "]"
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut files = Vec::new();
    proto_files(Path::new("proto"), &mut files)?;
    files.sort();
    let descriptors = protox::compile(&files, ["proto"])?;
    let out = std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    std::fs::write(Path::new(&out).join("calls.rs"), calls(&descriptors.file))?;
    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".")
        .include_file("api.rs")
        .compile_fds(descriptors)?;
    Ok(())
}
