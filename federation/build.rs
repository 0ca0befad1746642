//! Generates the peer protocol from its `.proto` files. Needs no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["peer", "facts", "policy", "nodes"].map(|file| format!("portolan/peer/v1/{file}.proto"));
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().bytes(".portolan.peer.v1").compile_fds(descriptors)?;
    Ok(())
}
