//! Compiles the protobuf files without protoc. It must not generate anything that the proto files do not say.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/heddle/config.proto", "proto/heddle/cni.proto", "proto/heddle/holder.proto"];
    for file in files {
        println!("cargo::rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    // The CNI plugin starts for every pod and must stay small, so services exist only behind the feature.
    let grpc = std::env::var_os("CARGO_FEATURE_GRPC").is_some();
    tonic_prost_build::configure()
        .build_client(grpc)
        .build_server(grpc)
        .build_transport(grpc)
        .btree_map(".")
        // Keys must not show in a Debug of a message.
        .skip_debug([".heddle.config.v1.Certificate"])
        .compile_fds(descriptors)?;
    if grpc {
        serve_encoded();
    }
    Ok(())
}

/// The Config service once more for the sender, whose messages hold resources that are encoded already (`sender.rs`).
fn serve_encoded() {
    let stream = tonic_prost_build::manual::Method::builder()
        .name("stream")
        .route_name("Stream")
        .input_type("crate::proto::ToController")
        .output_type("crate::sender::Outgoing")
        .codec_path("crate::sender::codec::OutgoingCodec")
        .client_streaming()
        .server_streaming()
        .build();
    let service =
        tonic_prost_build::manual::Service::builder().name("Config").package("heddle.config.v1").method(stream).build();
    tonic_prost_build::manual::Builder::new().build_client(false).build_transport(true).compile(&[service]);
}
