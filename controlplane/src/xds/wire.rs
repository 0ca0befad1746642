//! The codec of both variants: requests are read, responses are written from bytes that are ready. Nothing of a
//! resource is encoded here.

use std::marker::PhantomData;

use bytes::BufMut;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::delta::{self, Delta};
use super::protocol::{Response, Variant};
use super::sotw::{self, StateOfTheWorld};
use crate::resources::{Encoded, Kind};

/// What a stream keeps for each way while it is idle; tonic's default of 8 KB is more than all else that it has.
const BUFFER: usize = 64;
/// Responses up to this size that are ready together go into one piece.
const TOGETHER: usize = 16 << 10;
/// Room for a response's own fields: version, type and nonce.
const OWN_FIELDS: usize = 160;

/// A variant on the wire.
pub(crate) trait Wire: Variant + Send + 'static {
    /// Its request.
    type Message: Message + Default + Send + 'static;

    /// Who sends it, if it says so.
    fn node(message: &Self::Message) -> Option<&Node>;
    /// The type that it is about.
    fn type_url(message: &Self::Message) -> &str;
    /// Why a response is refused.
    fn error(message: &Self::Message) -> Option<&RpcStatus>;
    /// It as the state machine takes it.
    fn read(message: &Self::Message, kind: Kind) -> Self::Request<'_>;
    /// Writes a response's resources, and what is gone.
    fn put_resources(response: &Response, buffer: &mut impl BufMut);
    /// How many bytes a resource takes, about.
    fn size(encoded: &Encoded) -> usize;
}

impl Wire for StateOfTheWorld {
    type Message = DiscoveryRequest;

    fn node(message: &DiscoveryRequest) -> Option<&Node> {
        message.node.as_ref()
    }

    fn type_url(message: &DiscoveryRequest) -> &str {
        &message.type_url
    }

    fn error(message: &DiscoveryRequest) -> Option<&RpcStatus> {
        message.error_detail.as_ref()
    }

    fn read(message: &DiscoveryRequest, kind: Kind) -> sotw::Request<'_> {
        sotw::Request {
            kind,
            version_info: &message.version_info,
            names: &message.resource_names,
            nonce: &message.response_nonce,
            error: message.error_detail.as_ref().map(|error| error.message.as_str()),
        }
    }

    fn put_resources(response: &Response, buffer: &mut impl BufMut) {
        for encoded in &response.resources {
            buffer.put_slice(encoded.field());
        }
    }

    fn size(encoded: &Encoded) -> usize {
        encoded.field().len()
    }
}

impl Wire for Delta {
    type Message = DeltaDiscoveryRequest;

    fn node(message: &DeltaDiscoveryRequest) -> Option<&Node> {
        message.node.as_ref()
    }

    fn type_url(message: &DeltaDiscoveryRequest) -> &str {
        &message.type_url
    }

    fn error(message: &DeltaDiscoveryRequest) -> Option<&RpcStatus> {
        message.error_detail.as_ref()
    }

    fn read(message: &DeltaDiscoveryRequest, kind: Kind) -> delta::Request<'_> {
        delta::Request {
            kind,
            subscribe: &message.resource_names_subscribe,
            unsubscribe: &message.resource_names_unsubscribe,
            initial_versions: &message.initial_resource_versions,
            nonce: &message.response_nonce,
            error: message.error_detail.as_ref().map(|error| error.message.as_str()),
        }
    }

    /// A `Resource` is its version, the ready field, and its name.
    fn put_resources(response: &Response, buffer: &mut impl BufMut) {
        for encoded in &response.resources {
            let version = encoded.version().to_string();
            let len = text_len(&version) + encoded.field().len() + text_len(encoded.name());
            encode_key(2, WireType::LengthDelimited, buffer);
            encode_varint(len as u64, buffer);
            put_text(1, &version, buffer);
            buffer.put_slice(encoded.field());
            put_text(3, encoded.name(), buffer);
        }
        for name in &response.removed {
            put_text(6, name, buffer);
        }
    }

    fn size(encoded: &Encoded) -> usize {
        encoded.field().len() + encoded.name().len() + 32
    }
}

/// Writes a response. Version (1), type (4) and nonce (5) have the same numbers in both variants.
pub(super) fn put<V: Wire>(response: &Response, buffer: &mut impl BufMut) {
    put_text(1, &response.version.to_string(), buffer);
    V::put_resources(response, buffer);
    put_text(4, response.kind.type_url(), buffer);
    put_text(5, &response.nonce(), buffer);
}

fn put_text(field: u32, text: &str, buffer: &mut impl BufMut) {
    encode_key(field, WireType::LengthDelimited, buffer);
    encode_varint(text.len() as u64, buffer);
    buffer.put_slice(text.as_bytes());
}

/// Of a field with a number under 16.
fn text_len(text: &str) -> usize {
    1 + encoded_len_varint(text.len() as u64) + text.len()
}

/// The codec of one variant.
pub(super) struct WireCodec<V>(PhantomData<fn() -> V>);

impl<V> Default for WireCodec<V> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<V: Wire> Codec for WireCodec<V> {
    type Encode = Response;
    type Decode = V::Message;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<V: Wire> Encoder for WireCodec<V> {
    type Item = Response;
    type Error = Status;

    fn encode(&mut self, response: Response, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let removed: usize = response.removed.iter().map(|name| name.len() + 8).sum();
        buffer.reserve(OWN_FIELDS + response.resources.iter().map(V::size).sum::<usize>() + removed);
        put::<V>(&response, buffer);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, TOGETHER)
    }
}

impl<V: Wire> Decoder for WireCodec<V> {
    type Item = V::Message;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<V::Message>, Status> {
        let message = V::Message::decode(buffer);
        message.map(Some).map_err(|error| Status::internal(format!("the frame is no discovery request: {error}")))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, TOGETHER)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
    use proptest::prelude::*;

    use super::*;
    use crate::resources::Version;

    fn responses() -> impl Strategy<Value = Response> {
        let kind = prop::sample::select(&Kind::ALL[..]);
        let resource = ("[a-z.:]{0,200}", prop::collection::vec(any::<u8>(), 0..20_000));
        let (resources, removed) = (prop::collection::vec(resource, 0..4), prop::collection::vec("\\PC{0,9}", 0..3));
        (kind, any::<u64>(), any::<u64>(), resources, removed).prop_map(
            |(kind, version, number, resources, removed)| {
                let resources = resources
                    .into_iter()
                    .map(|(name, bytes)| Encoded::new(kind, name.as_str().into(), &bytes))
                    .collect();
                let removed = removed.into_iter().map(|name: String| Arc::from(name.as_str())).collect();
                Response { kind, version: Version(version), number, resources, removed }
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_reads_as_the_response_that_it_is(response in responses()) {
            let mut bytes = Vec::new();
            put::<StateOfTheWorld>(&response, &mut bytes);
            let read = DiscoveryResponse::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(read.version_info, response.version.to_string());
            prop_assert_eq!(&read.nonce, &response.nonce());
            prop_assert_eq!(&read.type_url, response.kind.type_url());
            let values: Vec<_> = read.resources.iter().map(|any| (any.type_url.as_str(), &any.value[..])).collect();
            let sent: Vec<_> = response.resources.iter().map(|it| (response.kind.type_url(), &it.bytes()[..])).collect();
            prop_assert_eq!(values, sent);

            let mut bytes = Vec::new();
            put::<Delta>(&response, &mut bytes);
            let read = DeltaDiscoveryResponse::decode(bytes.as_slice()).unwrap();
            prop_assert_eq!(read.nonce, response.nonce());
            prop_assert_eq!(read.removed_resources.len(), response.removed.len());
            prop_assert_eq!(read.resources.len(), response.resources.len());
            for (read, sent) in read.resources.iter().zip(&response.resources) {
                prop_assert_eq!(&*read.name, &**sent.name());
                prop_assert_eq!(&read.version, &sent.version().to_string());
                prop_assert_eq!(&read.resource.as_ref().unwrap().value[..], &sent.bytes()[..]);
            }
        }
    }
}
