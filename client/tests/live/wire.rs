//! HTTP/2 itself: servers that refuse streams or leave at awkward moments, and large bodies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use portolan_client::channel::{Channel, Picked};
use tower::{Service, ServiceExt};

use crate::support::{Backend, any_port, assignment, balancer, call, channel, listen, locality};

/// An HTTP/2 server that handles streams as `handle` says.
async fn server<F, R>(handle: F) -> SocketAddr
where
    F: Fn(http::Request<h2::RecvStream>, h2::server::SendResponse<Bytes>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = listen(any_port()).await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let handle = handle.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(handle(request, respond));
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_refused_stream_goes_to_another_endpoint_without_retries() {
    let refused = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&refused);
    let refuses = server(move |_, mut respond| {
        counter.fetch_add(1, Relaxed);
        async move { respond.send_reset(h2::Reason::REFUSED_STREAM) }
    })
    .await;
    let backend = Backend::start().await;
    let (channel, _source) = channel(assignment(vec![vec![locality("a", 1, &[refuses, backend.address])]]), 2).await;
    for _ in 0..30 {
        assert_eq!(call(&channel).await.unwrap().address, backend.address);
    }
    assert!(refused.load(Relaxed) > 0);
}

#[tokio::test]
async fn any_other_reset_is_the_callers() {
    let resets = server(|_, mut respond| async move { respond.send_reset(h2::Reason::INTERNAL_ERROR) }).await;
    let (channel, _source) = channel(assignment(vec![vec![locality("a", 1, &[resets])]]), 1).await;
    let status = call(&channel).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Internal);
    assert_eq!(Picked::of(&status).unwrap().address, resets);
}

/// Answers with as many bytes as came, one chunk for each that came.
async fn echo(request: http::Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let mut answer = respond.send_response(http::Response::new(()), false).unwrap();
    let mut body = request.into_body();
    while let Some(Ok(chunk)) = body.data().await {
        body.flow_control().release_capacity(chunk.len()).unwrap();
        answer.reserve_capacity(chunk.len());
        answer.send_data(chunk, false).unwrap();
    }
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    answer.send_trailers(trailers).unwrap();
}

async fn post(
    channel: &mut Channel,
    body: tonic::body::Body,
) -> http::Response<portolan_client::channel::ResponseBody> {
    let request = http::Request::post("/echo").body(body).unwrap();
    channel.ready().await.unwrap();
    ServiceExt::<http::Request<tonic::body::Body>>::ready(channel).await.unwrap().call(request).await.unwrap()
}

#[tokio::test]
async fn large_bodies_pass_both_ways_at_once() {
    let address = server(echo).await;
    let (mut channel, _source) = channel(assignment(vec![vec![locality("a", 1, &[address])]]), 1).await;
    let chunk = |i: u8| Ok::<_, tonic::Status>(http_body::Frame::data(Bytes::from(vec![i; 300_000])));
    let body = tonic::body::Body::new(StreamBody::new(tokio_stream::iter((0..20).map(chunk))));
    let response = post(&mut channel, body).await;
    assert_eq!(response.extensions().get::<Picked>().unwrap().address, address);
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    let bytes = collected.to_bytes();
    assert_eq!(bytes.len(), 20 * 300_000);
    assert!(bytes.chunks(300_000).zip(0u8..).all(|(chunk, i)| chunk.iter().all(|byte| *byte == i)));
}

#[tokio::test]
async fn a_stream_of_requests_is_answered_as_it_goes() {
    let address = server(echo).await;
    let (mut channel, _source) = channel(assignment(vec![vec![locality("a", 1, &[address])]]), 1).await;
    let (send, requests) = tokio::sync::mpsc::channel::<Result<http_body::Frame<Bytes>, tonic::Status>>(1);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let response = post(&mut channel, tonic::body::Body::new(StreamBody::new(requests))).await;
    let mut answers = response.into_body();
    for word in ["one", "two", "three"] {
        send.send(Ok(http_body::Frame::data(Bytes::from(word)))).await.unwrap();
        assert_eq!(answers.frame().await.unwrap().unwrap().into_data().unwrap(), word);
        assert_eq!(balancer(&channel).wanted()[0].in_flight(), 1, "until the answer ends");
    }
    drop(send);
    assert!(answers.frame().await.unwrap().unwrap().is_trailers());
    assert!(answers.frame().await.is_none());
    assert_eq!(balancer(&channel).wanted()[0].in_flight(), 0);
}

#[tokio::test]
async fn a_body_is_sent_again_whole_after_a_refusal() {
    // Reads the whole body, then refuses; the other echoes.
    let refuses = server(|request, mut respond| async move {
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.data().await {}
        respond.send_reset(h2::Reason::REFUSED_STREAM);
    })
    .await;
    let address = server(echo).await;
    let (mut channel, _source) = channel(assignment(vec![vec![locality("a", 1, &[refuses, address])]]), 2).await;
    let mut second = 0;
    for _ in 0..20 {
        let chunk = |i: u8| Ok::<_, tonic::Status>(http_body::Frame::data(Bytes::from(vec![i; 1000])));
        let body = tonic::body::Body::new(StreamBody::new(tokio_stream::iter((0..20).map(chunk))));
        let response = post(&mut channel, body).await;
        second += u32::from(response.extensions().get::<Picked>().unwrap().attempts == 2);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes().len(), 20_000);
    }
    assert!(second > 0);
}
