//! The cache with a catalog that says what a test wants.

use super::cache::{ResourceCache, Wanted, Watch, Watcher};
use super::class::ClientClass;
use super::fixtures::{Told, place, place_in, served};
use super::*;
use parking_lot::Mutex;
use std::collections::BTreeMap;

const SHOP: &str = "checkout.shop:8080";

/// Remembers what it heard.
#[derive(Default)]
struct Listener(Mutex<Vec<(Kind, Lookup)>>);

impl Watcher for Listener {
    fn changed(&self, kind: Kind, _: &Arc<str>, lookup: Lookup) {
        self.0.lock().push((kind, lookup));
    }
}

struct Case {
    catalog: Arc<Told>,
    cache: ResourceCache,
}

impl Case {
    fn new() -> Self {
        let catalog = Arc::new(Told::default());
        catalog.say("checkout.shop", &served(&["10.0.0.1:80"]));
        Self { cache: ResourceCache::new(catalog.clone()), catalog }
    }

    fn watch(&self, kind: Kind, class: ClientClass) -> (Encoded, Watch, Arc<Listener>) {
        let listener = Arc::new(Listener::default());
        let watcher: Arc<dyn Watcher> = listener.clone();
        let wanted = Wanted { kind, name: &SHOP.into(), client: &place("a"), class };
        match self.cache.watch(wanted, &watcher) {
            (Lookup::Present(encoded), Some(watch)) => (encoded, watch, listener),
            (other, _) => panic!("{other:?}"),
        }
    }
}

fn same_bytes(a: &Encoded, b: &Encoded) -> bool {
    a.bytes().as_ptr() == b.bytes().as_ptr()
}

/// Lets the cache's own task run.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_resource_is_encoded_once_for_everybody_who_needs_it() {
    let case = Case::new();
    let (first, _first, heard) = case.watch(Kind::Eds, ClientClass::GrpcGo);
    let others: Vec<_> = (0..100).map(|_| case.watch(Kind::Eds, ClientClass::Envoy)).collect();
    assert!(others.iter().all(|(encoded, ..)| same_bytes(&first, encoded)), "endpoints suit every class");
    assert_eq!(case.cache.encodes(), 1);
    case.catalog.say("checkout.shop", &served(&["10.0.0.2:80"]));
    settle().await;
    assert_eq!(case.cache.encodes(), 2);
    let Some((Kind::Eds, Lookup::Present(second))) = heard.0.lock().pop() else { panic!() };
    assert_ne!(first.version(), second.version());
    for (_, _, heard) in &others {
        let heard = heard.0.lock();
        let [(Kind::Eds, Lookup::Present(theirs))] = &heard[..] else { panic!("{heard:?}") };
        assert!(same_bytes(theirs, &second));
    }
}

#[tokio::test]
async fn a_change_reaches_those_alone_whom_it_concerns() {
    let case = Case::new();
    let (_, _watch, heard) = case.watch(Kind::Cds, ClientClass::Envoy);
    let before = case.cache.encodes();
    case.catalog.say("checkout.shop", &served(&["10.0.0.2:80"]));
    settle().await;
    assert_eq!(*heard.0.lock(), [], "the cluster did not change");
    assert_eq!(case.cache.encodes(), before, "and was not built to find that out");
}

#[tokio::test]
async fn classes_do_not_get_each_others_clusters() {
    let case = Case::new();
    let (envoy, _a, _) = case.watch(Kind::Cds, ClientClass::Envoy);
    let (go, _b, _) = case.watch(Kind::Cds, ClientClass::GrpcGo);
    assert_ne!(envoy.version(), go.version());
    assert!(same_bytes(&envoy, &case.watch(Kind::Cds, ClientClass::Envoy).0));
}

#[tokio::test]
async fn what_nobody_watches_goes_and_can_come_back() {
    let case = Case::new();
    for _ in 0..3 {
        let watches: Vec<_> =
            Kind::OF_SERVICES.into_iter().map(|kind| case.watch(kind, ClientClass::Envoy).1).collect();
        assert_eq!(case.cache.len(), 4);
        assert_eq!(case.catalog.listeners(), 1, "one question for all that is made from its answer");
        drop(watches);
        assert!(case.cache.is_empty());
        settle().await;
        assert_eq!(case.catalog.listeners(), 0);
    }
}

#[tokio::test]
async fn a_name_that_means_nothing_is_not_watched() {
    let case = Case::new();
    let watcher: Arc<dyn Watcher> = Arc::new(Listener::default());
    let wanted = Wanted { kind: Kind::Lds, name: &"not a name".into(), client: &place("a"), class: ClientClass::Envoy };
    let (lookup, watch) = case.cache.watch(wanted, &watcher);
    assert!(matches!(lookup, Lookup::Absent(Some(_))));
    assert!(watch.is_none());
    assert!(case.cache.is_empty());
}

#[tokio::test]
async fn routes_move_the_routes_of_their_service_for_the_own_clusters_clients_and_nothing_else() {
    let case = Case::new();
    case.catalog.say("web.shop", &served(&["10.0.0.1:80"]));
    let route = "apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{group: '', kind: Service, name: checkout}], rules: [{backendRefs: [{name: a, port: 1}]}]}
";
    let planned = crate::gateway::tests::planned(route).services;
    let (own, other) = (place("a"), place_in("use1-b", "a"));
    let watch = |kind, name: &str, client| {
        let listener = Arc::new(Listener::default());
        let watcher: Arc<dyn Watcher> = listener.clone();
        let wanted = Wanted { kind, name: &name.into(), client, class: ClientClass::GrpcGo };
        (case.cache.watch(wanted, &watcher), listener)
    };
    let concerned = watch(Kind::Rds, SHOP, &own);
    let others = [
        watch(Kind::Cds, SHOP, &own),
        watch(Kind::Eds, SHOP, &own),
        watch(Kind::Rds, "web.shop:8080", &own),
        watch(Kind::Rds, SHOP, &other),
    ];
    let news = |of: &Listener| std::mem::take(&mut *of.0.lock());
    case.cache.replace_routes(&"use1-a".parse().unwrap(), planned.clone());
    settle().await;
    let [(Kind::Rds, Lookup::Present(routed))] = &news(&concerned.1)[..] else { panic!() };
    // The same again is no news.
    case.cache.replace_routes(&"use1-a".parse().unwrap(), planned);
    settle().await;
    assert_eq!(news(&concerned.1), []);
    case.cache.replace_routes(&"use1-a".parse().unwrap(), BTreeMap::new());
    settle().await;
    let [(Kind::Rds, plain)] = &news(&concerned.1)[..] else { panic!() };
    let ((before, _), _) = &concerned;
    assert_eq!(plain, before);
    assert!(!matches!(plain, Lookup::Present(plain) if plain == routed));
    for (_, heard) in &others {
        assert_eq!(news(heard), []);
    }
    case.cache.withhold_routes();
    settle().await;
    let [(Kind::Rds, Lookup::Unknown)] = &news(&concerned.1)[..] else { panic!() };
}
