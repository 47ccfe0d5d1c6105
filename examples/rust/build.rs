//! Makes the stubs. PROTOS is the folder that `zkside protos` prints; protoc has to be in the PATH.

fn main() -> std::io::Result<()> {
    let protos = std::env::var("PROTOS").expect("PROTOS=$(zkside protos)");
    println!("cargo:rerun-if-env-changed=PROTOS");
    println!("cargo:rerun-if-changed={protos}");
    let files: Vec<String> = ["node", "lock", "election", "hold", "watch"]
        .iter()
        .map(|name| format!("{protos}/zkside/v1/{name}.proto"))
        .collect();
    tonic_build::configure()
        .build_server(false)
        .compile_protos(&files, &[protos])
}
