//! What no client should send, or do: it gets its status, and nobody else notices.

use std::time::Duration;

use bytes::{Buf, BufMut};
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::google::rpc::Status as RpcStatus;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Code, Status};

use super::harness::{Plane, until};
use super::{SHOP, addresses};
use crate::catalog::served::Served;
use crate::resources::Kind;
use crate::resources::fixtures::served;

#[tokio::test(start_paused = true)]
async fn a_stream_without_a_node_is_refused() {
    let plane = Plane::start();
    let mut ads = plane.open().await;
    ads.node = None;
    ads.subscribe(Kind::Lds, &["checkout.shop"]).await;
    assert_eq!(ads.next().await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(plane.server.counts().refused_streams, 1);
    assert!(plane.server.clients().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_never_says_anything_is_refused_in_the_end() {
    let plane = Plane::start();
    let mut ads = plane.open().await;
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(plane.server.counts().refused_streams, 0);
    assert_eq!(ads.next().await.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(plane.server.counts().refused_streams, 1);
}

#[tokio::test(start_paused = true)]
async fn a_nonce_that_was_never_issued_changes_nothing() {
    let (plane, mut ads, _) = Plane::serving(Kind::Eds).await;
    let invented = |nonce: &str| DiscoveryRequest {
        type_url: Kind::Eds.type_url().to_owned(),
        resource_names: vec!["other.shop:80".to_owned()],
        response_nonce: nonce.to_owned(),
        error_detail: Some(RpcStatus { code: 3, message: "no".to_owned(), details: Vec::new() }),
        ..DiscoveryRequest::default()
    };
    for nonce in ["EDS-7", "CDS-1", "x", "\u{7f}"] {
        ads.requests.send(invented(nonce)).await.unwrap();
    }
    ads.silent().await;
    let counts = plane.server.counts();
    assert_eq!((counts.stale_requests, counts.nacks, counts.acks), (4, 0, 1));
    plane.catalog.say("checkout.shop", &served(&["10.0.0.2:80"]));
    assert_eq!(addresses(&ads.take(Kind::Eds, &[SHOP]).await), ["10.0.0.2"]);
}

#[tokio::test(start_paused = true)]
async fn more_names_than_are_served_are_refused() {
    let plane = Plane::start();
    let names: Vec<String> = (0..=10_000).map(|number| format!("s{number}.shop")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut ads = plane.open().await;
    ads.subscribe(Kind::Lds, &names).await;
    assert_eq!(ads.next().await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(plane.server.counts().refused_streams, 1);
}

#[tokio::test(start_paused = true)]
async fn as_many_names_as_are_served_are_answered() {
    let plane = Plane::start();
    let names: Vec<String> = (0..10_000).map(|number| format!("not a name {number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut ads = plane.open().await;
    ads.subscribe(Kind::Eds, &names).await;
    assert_eq!(ads.next().await.unwrap().resources.len(), 10_000);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_type_is_left_unanswered_and_the_stream_goes_on() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let mut ads = plane.open().await;
    ads.send("type.googleapis.com/envoy.service.runtime.v3.Runtime", &["x"], None).await;
    ads.silent().await;
    ads.subscribe(Kind::Eds, &[SHOP]).await;
    ads.take(Kind::Eds, &[SHOP]).await;
    assert_eq!(plane.server.counts().unknown_types, 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_refuses_for_ever_is_sent_each_content_once() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
    let mut ads = plane.open().await;
    ads.subscribe(Kind::Eds, &[SHOP]).await;
    for last in 2..10 {
        ads.next().await.unwrap();
        for _ in 0..5 {
            ads.send(Kind::Eds.type_url(), &[SHOP], Some("never")).await;
        }
        ads.silent().await;
        plane.catalog.say("checkout.shop", &served(&[&format!("10.0.0.{last}:80")]));
    }
    ads.next().await.unwrap();
    assert_eq!(plane.server.counts().responses, 9);
}

/// Some 100 KB of endpoints: a few of these fill every buffer on the way.
fn many(second: usize) -> Served {
    let addresses: Vec<String> = (0..2_000).map(|n| format!("10.{second}.{}.{}:80", n / 250, n % 250)).collect();
    served(&addresses.iter().map(String::as_str).collect::<Vec<_>>())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_holds_up_nobody_and_skips_to_the_newest() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &many(0));
    let mut slow = plane.open().await;
    slow.subscribe(Kind::Eds, &[SHOP]).await;
    let mut quick = plane.open().await;
    quick.subscribe(Kind::Eds, &[SHOP]).await;
    quick.take(Kind::Eds, &[SHOP]).await;
    for second in 1..=40 {
        plane.catalog.say("checkout.shop", &many(second));
        let response = quick.take(Kind::Eds, &[SHOP]).await;
        assert_eq!(addresses(&response)[0], format!("10.{second}.0.0"));
    }
    let mut taken = 0;
    loop {
        taken += 1;
        if addresses(&slow.next().await.unwrap())[0] == "10.40.0.0" {
            break;
        }
    }
    assert!(taken < 30, "{taken} of 41");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_cut_off() {
    let plane = Plane::start();
    plane.catalog.say("checkout.shop", &many(0));
    let mut slow = plane.open().await;
    slow.subscribe(Kind::Eds, &[SHOP]).await;
    until("it is in", || plane.server.clients().len() == 1).await;
    for second in 1..=40 {
        plane.catalog.say("checkout.shop", &many(second));
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(plane.server.clients().len(), 1);
    until("it is cut off", || plane.server.clients().is_empty()).await;
    assert_eq!(plane.server.counts().stalled_streams, 1);
}

/// Sends bytes as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// Sends one frame with these bytes, and says how the stream ended.
async fn send_raw(plane: &Plane, bytes: Vec<u8>) -> Status {
    let mut client = tonic::client::Grpc::new(plane.channel.clone());
    client.ready().await.unwrap();
    let path =
        PathAndQuery::from_static("/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources");
    let frames = futures::StreamExt::chain(
        futures::stream::once(std::future::ready(bytes)),
        futures::stream::pending::<Vec<u8>>(),
    );
    match client.streaming(tonic::Request::new(frames), path, Raw).await {
        Err(status) => status,
        Ok(response) => response.into_inner().message().await.unwrap_err(),
    }
}

#[tokio::test(start_paused = true)]
async fn frames_that_are_no_requests_end_their_own_stream_alone() {
    let (plane, mut good, _) = Plane::serving(Kind::Eds).await;
    for (bytes, code) in [
        (vec![0xff; 64], Code::Internal),
        (vec![0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], Code::Internal),
        (vec![0; 100 << 20], Code::OutOfRange),
    ] {
        assert_eq!(send_raw(&plane, bytes).await.code(), code);
    }
    assert_eq!(plane.server.counts().bad_frames, 3);
    plane.catalog.say("checkout.shop", &served(&["10.0.0.2:80"]));
    assert_eq!(addresses(&good.take(Kind::Eds, &[SHOP]).await), ["10.0.0.2"]);
}
