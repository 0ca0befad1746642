//! Generates the peer protocol from its `.proto` files. Needs no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["portolan/peer/v1/peer.proto", "portolan/peer/v1/facts.proto", "portolan/peer/v1/policy.proto"];
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().bytes(".portolan.peer.v1").compile_fds(descriptors)?;
    Ok(())
}
