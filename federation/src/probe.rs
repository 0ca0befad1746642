//! First-hand evidence: connections to a silent cluster's endpoints.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use crate::liveness::Round;
use crate::net::Net;

/// How long a connection may take.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(700);
/// How many endpoints are tried in a round.
pub(crate) const SAMPLE: usize = 8;

/// Connects to each of `addresses` at once, and counts what came of it.
pub(crate) async fn round(net: Arc<dyn Net>, addresses: Vec<String>) -> Round {
    let tries = addresses.iter().map(|address| tokio::time::timeout(TIMEOUT, net.dial(address)));
    join_all(tries).await.into_iter().fold(Round::default(), |mut round, outcome| {
        match outcome {
            Ok(Ok(_connection)) => round.answered += 1,
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => round.refused += 1,
            Ok(Err(_)) | Err(_) => round.silent += 1,
        }
        round
    })
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use async_trait::async_trait;

    use super::*;
    use crate::net::{BoxStream, Listener, TokioNet};

    /// Never answers.
    struct Void;

    #[async_trait]
    impl Net for Void {
        async fn dial(&self, _address: &str) -> io::Result<BoxStream> {
            std::future::pending().await
        }

        async fn listen(&self, _address: SocketAddr) -> io::Result<Box<dyn Listener>> {
            Err(io::ErrorKind::Unsupported.into())
        }

        async fn resolve(&self, _address: &str) -> io::Result<Vec<SocketAddr>> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    #[tokio::test]
    async fn an_open_port_answers_and_a_closed_one_refuses() {
        let open = TokioNet.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
        let closed = {
            let listener = TokioNet.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
            listener.local_addr().unwrap()
        };
        let addresses = vec![open.local_addr().unwrap().to_string(), closed.to_string()];
        let round = round(Arc::new(TokioNet), addresses).await;
        assert_eq!(round, Round { answered: 1, refused: 1, silent: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_silence_after_the_timeout() {
        let begun = tokio::time::Instant::now();
        let round = round(Arc::new(Void), vec!["a:1".into(), "b:1".into()]).await;
        assert_eq!(round, Round { answered: 0, refused: 0, silent: 2 });
        assert_eq!(begun.elapsed(), TIMEOUT);
    }
}
