//! Streams of the config protocol as a proxy opens them. It must not keep what comes.

use anyhow::{Context, Result};
use mesh_wire::{
    MESSAGE_MAX, PROTOCOL,
    proto::{Hello, ToController, to_controller::Message as Say},
};
use prost::Message;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming, client::Grpc, transport::Endpoint};
use tonic_prost::ProstCodec;

/// Of the stream.
const PATH: &str = "/heddle.config.v1.Config/Stream";

/// A stream whose Hello is said; answers go into the sender. `M` is the form in which messages are read.
pub async fn open<M: Message + Default + 'static>(
    controller: &str,
    name: &str,
) -> Result<(mpsc::Sender<ToController>, Streaming<M>)> {
    let channel = Endpoint::from_shared(format!("http://{controller}"))?.connect().await.context("the controller")?;
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MESSAGE_MAX);
    grpc.ready().await?;
    let (say, sayings) = mpsc::channel(2);
    let hello = Hello { protocol: PROTOCOL, proxy: name.to_owned(), known: BTreeMap::new() };
    say.send(ToController { message: Some(Say::Hello(hello)) }).await?;
    let mut request = Request::new(ReceiverStream::new(sayings));
    request.metadata_mut().insert("authorization", format!("Bearer {name}").parse()?);
    let codec = ProstCodec::<ToController, M>::default();
    let response = grpc.streaming(request, http::uri::PathAndQuery::from_static(PATH), codec).await?;
    Ok((say, response.into_inner()))
}
