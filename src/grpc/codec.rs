//! Protobuf on the wire, as tonic's own codec has it, and bounded.
//!
//! Decoding makes of each element of a repeated field a value of up to a hundred bytes, so that 16 MB of elements
//! without content would become a gigabyte. They are counted on the wire first: where there are many, they must be of
//! eight bytes on average, as what anybody means is. So N bytes become at most 1.6 MB and 13 x N.

use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint};
use tonic::Status;
use tonic::codec::{DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::proto;
use crate::long_work;

/// So many elements may be of any size.
const FEW: usize = 1 << 14;

/// What each element has on the wire on average, where there are more: key and length included.
const ELEMENT_BYTES: usize = 8;

/// Messages that a peer sends.
pub(crate) trait Received: Message + Default {
    /// The fields whose messages have repeated fields too.
    const NESTED: &'static [u32] = &[];
}

impl Received for proto::EmbedRequest {}
impl Received for proto::ClassifyRequest {}
/// Documents are vectors that may have thousands of numbers, and these are packed.
impl Received for proto::RankRequest {}
impl Received for proto::GetModelRequest {}
impl Received for proto::StreamEmbedRequest {}
impl Received for proto::StreamClassifyRequest {
    const NESTED: &'static [u32] = &[1];
}
impl Received for proto::EmbedResponse {}
impl Received for proto::ClassifyResponse {}
impl Received for proto::RankResponse {}
impl Received for proto::GetModelResponse {}
impl Received for proto::StreamEmbedResponse {}
impl Received for proto::StreamClassifyResponse {}

/// For the generated code.
pub(crate) struct Codec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for Codec<E, D> {
    fn default() -> Codec<E, D> {
        Codec(PhantomData)
    }
}

impl<E, D> tonic::codec::Codec for Codec<E, D>
where
    E: Message + Send + 'static,
    D: Received + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = Codec<E, ()>;
    type Decoder = Codec<(), D>;

    fn encoder(&mut self) -> Codec<E, ()> {
        Codec::default()
    }

    fn decoder(&mut self) -> Codec<(), D> {
        Codec::default()
    }
}

impl<E: Message> Encoder for Codec<E, ()> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, message: E, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let bytes = message.encoded_len();
        buffer.reserve(bytes);
        // It can only fail for lack of room.
        long_work::over(bytes, || message.encode_raw(buffer));
        Ok(())
    }
}

impl<D: Received> Decoder for Codec<(), D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        check(buffer.chunk(), D::NESTED)?;
        let decoded = long_work::over(buffer.remaining(), || D::decode(buffer));
        decoded.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}

/// Refuses a message of too many elements without content.
fn check(message: &[u8], nested: &[u32]) -> Result<(), Status> {
    let elements = elements(message, nested);
    if elements > FEW && elements.saturating_mul(ELEMENT_BYTES) > message.len() {
        let bytes = message.len();
        return Err(Status::invalid_argument(format!(
            "{elements} elements in {bytes} bytes are more than the limit of {FEW}, or one in {ELEMENT_BYTES} bytes"
        )));
    }
    Ok(())
}

/// Fields with a length; what is malformed is left to the decoder.
fn elements(mut message: &[u8], nested: &[u32]) -> usize {
    let mut count = 0;
    while message.has_remaining() {
        let Ok((field, kind)) = decode_key(&mut message) else { return count };
        let length = match kind {
            WireType::Varint => {
                if decode_varint(&mut message).is_err() {
                    return count;
                }
                0
            }
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => {
                count += 1;
                match decode_varint(&mut message) {
                    Ok(length) => usize::try_from(length).unwrap_or(usize::MAX),
                    Err(_) => return count,
                }
            }
            // The decoder skips what is in them.
            WireType::StartGroup | WireType::EndGroup => 0,
        };
        let Some((content, rest)) = message.split_at_checked(length) else { return count };
        if kind == WireType::LengthDelimited && nested.contains(&field) {
            count += elements(content, &[]);
        }
        message = rest;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(message: &[u8], nested: &[u32]) {
        let status = check(message, nested).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().contains("elements in"), "{status}");
    }

    #[test]
    fn many_elements_without_content_are_refused_before_they_are_decoded() {
        let empty = [0x0a, 0x00].repeat(1_000_000);
        refused(&empty, &[]);
        let options = proto::ClassifyOptions { labels: vec!["a".into(); 100_000], ..Default::default() };
        let request = proto::stream_classify_request::Request::Options(options);
        let message = proto::StreamClassifyRequest { request: Some(request) }.encode_to_vec();
        refused(&message, proto::StreamClassifyRequest::NESTED);
        assert!(check(&message, &[]).is_ok(), "it is the nested ones that are many");
    }

    #[test]
    fn what_people_send_is_not() {
        let labels = (0..20_000).map(|n| format!("label {n}").into()).collect();
        let request = proto::ClassifyRequest { labels, ..Default::default() };
        check(&request.encode_to_vec(), &[]).unwrap();
        check(&[0x0a, 0x00].repeat(FEW), &[]).unwrap();
        let vector = proto::Vector { values: vec![1.0; 100_000] };
        check(&vector.encode_to_vec(), &[]).unwrap();
    }

    /// Whatever the bytes are, they are read to their end or to the first that makes no sense.
    #[test]
    fn any_bytes_are_counted() {
        let mut state = 1_u64;
        for length in 0..2000 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8 & 0x1f
                })
                .collect();
            assert!(elements(&bytes, &[1, 2]) <= bytes.len());
        }
    }
}
