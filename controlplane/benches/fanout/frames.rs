//! The few bytes of gRPC and of discovery messages that a light client reads and writes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

/// A gRPC message's head: not compressed, and its length.
const HEAD: usize = 5;

/// Puts messages together from the pieces in which they come.
#[derive(Default)]
pub(crate) struct Framer {
    buffer: BytesMut,
}

impl Framer {
    pub(crate) fn push(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
    }

    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let length = u32::from_be_bytes(self.buffer.get(1..HEAD)?.try_into().ok()?) as usize;
        if self.buffer.len() < HEAD + length {
            return None;
        }
        self.buffer.advance(HEAD);
        let message = self.buffer.split_to(length).freeze();
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Some(message)
    }
}

/// What a client needs of a response.
#[derive(Default)]
pub(crate) struct Response {
    pub(crate) version: Bytes,
    pub(crate) type_url: Bytes,
    pub(crate) nonce: Bytes,
    pub(crate) resource: Bytes,
}

impl Response {
    pub(crate) fn read(mut message: Bytes) -> Self {
        let mut response = Self::default();
        while message.has_remaining() {
            let (field, wire) = decode_key(&mut message).unwrap();
            assert_eq!(wire, WireType::LengthDelimited);
            let length = usize::try_from(decode_varint(&mut message).unwrap()).unwrap();
            let value = message.split_to(length);
            match field {
                1 => response.version = value,
                2 => response.resource = value,
                4 => response.type_url = value,
                5 => response.nonce = value,
                _ => {}
            }
        }
        response
    }
}

/// A DiscoveryRequest in its frame. `node`: the encoded Node, on a stream's first.
pub(crate) fn request(node: Option<&[u8]>, type_url: &[u8], name: &[u8], version: &[u8], nonce: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(512);
    frame.put_slice(&[0; HEAD]);
    let fields = [(1, version), (2, node.unwrap_or_default()), (3, name), (4, type_url), (5, nonce)];
    for (field, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        put(field, value, &mut frame);
    }
    let length = u32::try_from(frame.len() - HEAD).unwrap();
    frame[1..HEAD].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

fn put(field: u32, value: &[u8], buffer: &mut BytesMut) {
    encode_key(field, WireType::LengthDelimited, buffer);
    encode_varint(value.len() as u64, buffer);
    buffer.put_slice(value);
}
