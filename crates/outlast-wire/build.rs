fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "proto/outlast/v2/session.proto";
    println!("cargo:rerun-if-changed={proto}");
    let descriptors = protox::compile([proto], ["proto"])?;
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
