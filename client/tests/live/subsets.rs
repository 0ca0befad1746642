//! A client of a part of a large locality.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;

use portolan_client::channel::{Channel, Options, Subset};
use portolan_client::xds::model::Resolution;
use tokio::sync::watch;

use crate::support::{Backend, assignment, balancer, call, connected, locality};

fn wanted(channel: &Channel) -> BTreeSet<SocketAddr> {
    balancer(channel).wanted().iter().map(|endpoint| endpoint.address()).collect()
}

#[tokio::test]
async fn only_the_subset_is_connected_and_asked_and_it_follows_changes() {
    let backends = Backend::start_many(6).await;
    let mut addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let two = Subset::by_index(NonZeroUsize::new(2).unwrap(), 3);
    let of = |addresses: &[SocketAddr]| Resolution::from(assignment(vec![vec![locality("a", 1, addresses)]]));
    let (source, resolutions) = watch::channel(of(&addresses));
    let channel = Channel::over("checkout.shop", resolutions, Options { subset: Some(two), ..Options::new(1) });
    connected(&channel, 2).await;
    let before = wanted(&channel);
    assert_eq!(before.len(), 2);
    let mut asked = BTreeSet::new();
    for _ in 0..30 {
        asked.insert(call(&channel).await.unwrap().address);
    }
    assert_eq!(asked, before);
    // One of the two leaves, and another takes its place.
    let gone = *before.first().unwrap();
    addresses.retain(|address| *address != gone);
    source.send_replace(of(&addresses));
    while wanted(&channel).contains(&gone) {
        tokio::task::yield_now().await;
    }
    connected(&channel, 2).await;
    assert_ne!(call(&channel).await.unwrap().address, gone);
}
