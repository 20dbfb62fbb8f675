//! The codec of the sender: protobuf as everywhere, with a buffer as large as a delta. It must not change a byte of what is sent.

use super::{DELTA_BYTES, Outgoing};
use crate::proto::ToController;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::ProstCodec;

/// What a message holds beside the resources of its delta: lengths, tags, ids of what is removed.
const ROOM: usize = 4 * 1024;

/// Encodes [`Outgoing`]. A stream keeps the buffer of its largest message as long as it lives; one that grows does so by doubling, and with
/// hundreds of streams what nobody needs would be tens of megabytes. Of this one only what was written takes memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutgoingCodec(());

type Prost = ProstCodec<Outgoing, ToController>;

impl Codec for OutgoingCodec {
    type Encode = Outgoing;
    type Decode = ToController;
    type Encoder = <Prost as Codec>::Encoder;
    type Decoder = <Prost as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        Prost::raw_encoder(BufferSettings::new(DELTA_BYTES + ROOM, DELTA_BYTES))
    }

    fn decoder(&mut self) -> Self::Decoder {
        Prost::default().decoder()
    }
}
