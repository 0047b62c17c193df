//! Compiles the API's messages and services without `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(
        [
            "kv.proto",
            "watch.proto",
            "lease.proto",
            "cluster.proto",
            "maintenance.proto",
            "auth.proto",
            "health.proto",
        ],
        ["proto"],
    )?;
    tonic_prost_build::configure()
        // Keys and values share the memory of the frame that they came in.
        .bytes(".")
        .generate_default_stubs(true)
        .compile_fds(descriptors)?;
    Ok(())
}
