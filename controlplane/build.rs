//! Describes the xDS services for gRPC reflection. Needs no `protoc`.

use prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["xds.proto", "eds.proto", "csds.proto"], ["proto"])?;
    let file = std::path::Path::new(&std::env::var("OUT_DIR")?).join("xds.bin");
    std::fs::write(file, descriptors.encode_to_vec())?;
    Ok(())
}
