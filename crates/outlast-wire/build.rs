fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "proto/outlast/v2/session.proto";
    println!("cargo:rerun-if-changed={proto}");
    let descriptors = protox::compile([proto], ["proto"])?;
    let mut config = prost_build::Config::new();
    // Seldom sent: it would make every message in memory as large.
    config.bytes(["."]).btree_map(["."]).boxed(".outlast.v2.Hello.link");
    config.compile_fds(descriptors)?;
    Ok(())
}
