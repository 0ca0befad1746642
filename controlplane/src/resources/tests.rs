//! What every client needs of a resource, whatever the service.

use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::LbPolicy;
use envoy_types::pb::envoy::config::cluster::v3::load_balancing_policy::Policy;
use envoy_types::pb::envoy::config::core::v3::HealthStatus;
use envoy_types::pb::envoy::config::core::v3::address::Address as AddressKind;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType as FilterConfig;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::extensions::load_balancing_policies::least_request::v3::LeastRequest;
use envoy_types::pb::envoy::extensions::load_balancing_policies::ring_hash::v3::RingHash;
use envoy_types::pb::envoy::extensions::load_balancing_policies::wrr_locality::v3::WrrLocality;
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::protobuf::value::Kind as ValueKind;
use portolan_client::xds::hashing::{HashOn, HashPolicy};
use portolan_client::xds::routing::Forward;
use portolan_client::xds::{model as client_model, resources as client};
use portolan_topology::policy::{
    Backoff, Connection, EffectivePolicy, OutlierDetection, Retry, RetryOn, Strategy as Balancer, Warmup,
};
use portolan_topology::service::{Endpoint, Health};
use proptest::prelude::*;
use prost::Message;

use super::build::{Routes, build, is_unmoved};
use super::class::ClientClass;
use super::fixtures::{place, place_in, planned, ready, served, service};
use super::name::ResourceName;
use super::*;
use crate::catalog::served::{Served, ServedService};

pub(super) const CLASSES: [ClientClass; 7] = [
    ClientClass::Envoy,
    ClientClass::GrpcCore,
    ClientClass::GrpcJs,
    ClientClass::GrpcGo,
    ClientClass::GrpcJava,
    ClientClass::Portolan,
    ClientClass::Unknown,
];

fn encoded(kind: Kind, asked: &str, served: &Served, class: ClientClass) -> Encoded {
    let name = asked.parse::<ResourceName>().ok();
    match build(kind, &Arc::from(asked), name.as_ref(), served, &Routes::None, class) {
        Lookup::Present(encoded) | Lookup::Absent(Some(encoded)) => encoded,
        other => panic!("{kind} {asked}: {other:?}"),
    }
}

fn decode<T: Message + Default>(encoded: &Encoded) -> T {
    T::decode(encoded.bytes().clone()).unwrap()
}

fn assignment(service: ServedService) -> ClusterLoadAssignment {
    decode(&encoded(Kind::Eds, "checkout.shop:8080", &Served::Present(Arc::new(service)), ClientClass::Envoy))
}

fn manager(listener: &Listener) -> HttpConnectionManager {
    let any = listener.api_listener.as_ref().unwrap().api_listener.as_ref().unwrap();
    HttpConnectionManager::decode(any.value.as_slice()).unwrap()
}

/// What our own client makes of it; it checks what gRPC's do.
pub(super) fn accepted(encoded: &Encoded) -> client::Decoded {
    let kind = client::Kind::of(encoded.kind().type_url()).unwrap();
    let any = Any { type_url: encoded.kind().type_url().to_owned(), value: encoded.bytes().to_vec() };
    let (name, content) = client::decode(kind, &any).unwrap();
    assert_eq!(name, **encoded.name());
    content.unwrap()
}

#[test]
fn a_name_leads_from_its_listener_to_its_endpoints_in_every_class() {
    for class in CLASSES {
        for (asked, canonical) in [
            ("checkout.shop", "checkout.shop:8080"),
            ("checkout.shop:grpc", "checkout.shop:8080"),
            ("checkout.shop.svc.clusterset.local:8080", "checkout.shop:8080"),
            ("checkout.shop.svc.cluster.local", "checkout.shop.svc.cluster.local:8080"),
        ] {
            let served = served(&["10.0.0.1:80"]);
            let client::Decoded::Listener(listener) = accepted(&encoded(Kind::Lds, asked, &served, class)) else {
                panic!()
            };
            assert_eq!(listener.routes, client::listener::Routes::Named(canonical.to_owned()));
            let client::Decoded::RouteConfiguration(routes) = accepted(&encoded(Kind::Rds, canonical, &served, class))
            else {
                panic!()
            };
            assert_eq!(*routed_to(&routes, asked), *canonical);
            accepted(&encoded(Kind::Eds, canonical, &served, class));
            if class != ClientClass::Envoy {
                accepted(&encoded(Kind::Cds, canonical, &served, class));
            }
        }
    }
}

#[test]
fn a_listener_has_the_router_without_which_grpc_refuses_it() {
    let listener: Listener =
        decode(&encoded(Kind::Lds, "checkout.shop", &served(&["10.0.0.1:80"]), ClientClass::GrpcCore));
    let filters = manager(&listener).http_filters;
    assert_eq!(filters.len(), 1);
    assert_eq!(filters[0].name, "envoy.filters.http.router");
}

#[test]
fn what_does_not_exist_fails_at_once_in_each_client() {
    for class in CLASSES {
        for asked in ["nothing.shop", "not a name", "grpc/server?xds.resource.listening_address=nowhere"] {
            let listener: Listener = decode(&encoded(Kind::Lds, asked, &Served::Absent, class));
            let Some(RouteSpecifier::RouteConfig(routes)) = manager(&listener).route_specifier else { panic!() };
            if class == ClientClass::GrpcJs {
                assert_eq!(routes.virtual_hosts[0].domains, ["*"]);
                assert_eq!(routes.virtual_hosts[0].routes, []);
            } else {
                assert_eq!(routes.virtual_hosts, []);
            }
            let endpoints: ClusterLoadAssignment = decode(&encoded(Kind::Eds, asked, &Served::Absent, class));
            assert_eq!((endpoints.cluster_name.as_str(), endpoints.endpoints.len()), (asked, 0));
            let name = asked.parse::<ResourceName>().ok();
            assert_eq!(
                build(Kind::Cds, &Arc::from(asked), name.as_ref(), &Served::Absent, &Routes::None, class),
                Lookup::Absent(None)
            );
        }
    }
}

#[test]
fn what_is_not_known_yet_is_not_built_but_a_malformed_name_is_known() {
    for kind in Kind::OF_SERVICES {
        let name = "checkout.shop".parse().unwrap();
        let asked: Arc<str> = "checkout.shop".into();
        assert_eq!(
            build(kind, &asked, Some(&name), &Served::NotYet, &Routes::None, ClientClass::Envoy),
            Lookup::Unknown
        );
        assert_ne!(build(kind, &asked, None, &Served::NotYet, &Routes::None, ClientClass::Envoy), Lookup::Unknown);
    }
}

#[test]
fn what_is_asked_of_an_authority_leads_to_its_own_names_as_grpc_demands() {
    let name = |kind: Kind, id| format!("xdstp://east/{}/{id}", kind.message());
    let served = served(&["10.0.0.1:80"]);
    let asked = name(Kind::Lds, "checkout.shop");
    let client::Decoded::Listener(listener) = accepted(&encoded(Kind::Lds, &asked, &served, ClientClass::GrpcGo))
    else {
        panic!()
    };
    let routes = name(Kind::Rds, "checkout.shop:8080");
    assert_eq!(listener.routes, client::listener::Routes::Named(routes.clone()));
    let client::Decoded::RouteConfiguration(routes) =
        accepted(&encoded(Kind::Rds, &routes, &served, ClientClass::GrpcGo))
    else {
        panic!()
    };
    let cluster = routed_to(&routes, "checkout.shop");
    assert_eq!(*cluster, *name(Kind::Cds, "checkout.shop:8080"));
    let cluster: Cluster = decode(&encoded(Kind::Cds, &cluster, &served, ClientClass::GrpcGo));
    let endpoints = cluster.eds_cluster_config.unwrap().service_name;
    assert_eq!(endpoints, name(Kind::Eds, "checkout.shop:8080"));
    accepted(&encoded(Kind::Eds, &endpoints, &served, ClientClass::GrpcGo));
    // A name of another type is no name of this one.
    let wrong = Arc::from(asked.as_str());
    let read = asked.parse().ok();
    assert_eq!(
        build(Kind::Cds, &wrong, read.as_ref(), &served, &Routes::None, ClientClass::GrpcGo),
        Lookup::Absent(None)
    );
}

#[test]
fn a_grpc_server_gets_the_listener_of_its_own_address_and_nobody_else_does() {
    for (class, address) in CLASSES.into_iter().zip(["0.0.0.0:50051", "127.0.0.1:1", "[::]:50051"].into_iter().cycle())
    {
        let asked = format!("grpc/server?xds.resource.listening_address={address}");
        let listener: Listener = decode(&encoded(Kind::Lds, &asked, &Served::Absent, class));
        let is_server = matches!(class, ClientClass::GrpcCore | ClientClass::GrpcGo | ClientClass::GrpcJava);
        assert_eq!(listener.address.is_some(), is_server, "{class:?}");
        assert_eq!(listener.api_listener.is_some(), !is_server, "{class:?}");
        if !is_server {
            continue;
        }
        let Some(AddressKind::SocketAddress(at)) = listener.address.unwrap().address else { panic!() };
        let Some(PortSpecifier::PortValue(port)) = at.port_specifier else { panic!() };
        let ip: std::net::IpAddr = at.address.parse().unwrap();
        assert_eq!(std::net::SocketAddr::new(ip, port.try_into().unwrap()).to_string(), address);
        let filter = listener.default_filter_chain.unwrap().filters.remove(0);
        let Some(FilterConfig::TypedConfig(any)) = filter.config_type else { panic!() };
        let manager = HttpConnectionManager::decode(any.value.as_slice()).unwrap();
        assert_eq!(manager.http_filters.len(), 1, "the router");
        let Some(RouteSpecifier::RouteConfig(routes)) = manager.route_specifier else { panic!() };
        assert!(matches!(routes.virtual_hosts[0].routes[0].action, Some(Action::NonForwardingAction(_))));
    }
}

fn cluster(class: ClientClass) -> Cluster {
    decode(&encoded(Kind::Cds, "checkout.shop:8080", &served(&["10.0.0.1:80"]), class))
}

#[test]
fn grpc_gets_two_choices_within_weighted_localities_and_envoy_its_own_form_of_it() {
    for class in CLASSES {
        let cluster = cluster(class);
        let names: Vec<String> = cluster
            .load_balancing_policy
            .iter()
            .flat_map(|policy| &policy.policies)
            .map(|policy| policy.typed_extension_config.as_ref().unwrap().name.rsplit('.').next().unwrap().to_owned())
            .collect();
        match class {
            ClientClass::Envoy => assert_eq!(names, ["least_request"]),
            ClientClass::Unknown => {
                assert_eq!(names, NOTHING);
                assert_eq!(cluster.lb_policy, i32::from(LbPolicy::RoundRobin));
            }
            _ => {
                assert_eq!(names, ["wrr_locality", "round_robin"]);
                let policies = &cluster.load_balancing_policy.as_ref().unwrap().policies;
                let config = policies[0].typed_extension_config.as_ref().unwrap().typed_config.as_ref().unwrap();
                let wrr = WrrLocality::decode(config.value.as_slice()).unwrap();
                let within: Vec<_> = wrr.endpoint_picking_policy.unwrap().policies;
                let within: Vec<_> =
                    within.into_iter().map(|policy| policy.typed_extension_config.unwrap().name).collect();
                assert_eq!(
                    within,
                    ["envoy.load_balancing_policies.least_request", "envoy.load_balancing_policies.round_robin"]
                );
            }
        }
        let thresholds = &cluster.circuit_breakers.as_ref().unwrap().thresholds;
        assert_eq!(
            thresholds[0].max_requests.as_ref().unwrap().value,
            100_000,
            "gRPC enforces 1024 where none is said"
        );
        assert_eq!(cluster.outlier_detection.is_some(), class.may_be_envoy());
        assert!(cluster.typed_extension_protocol_options.len() == 1, "Envoy fails gRPC calls without HTTP/2 options");
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_cluster_carries_how_a_locality_comes_back_and_encodes_the_same_each_time() {
    let cluster = cluster(ClientClass::Portolan);
    let ours = &cluster.metadata.as_ref().unwrap().filter_metadata["portolan.dev"];
    assert_eq!(ours.fields["failbackRampMs"].kind, Some(ValueKind::NumberValue(60_000.0)));
    assert_eq!(ours.fields["failbackHoldDownMs"].kind, Some(ValueKind::NumberValue(30_000.0)));
    let versions: BTreeSet<_> =
        (0..50).map(|_| encoded(Kind::Cds, "checkout.shop:8080", &served(&[]), ClientClass::Envoy).version()).collect();
    assert_eq!(versions.len(), 1);
}

fn endpoint(address: &str, health: Health) -> Endpoint {
    Endpoint { health, ..ready(address) }
}

#[test]
fn endpoints_carry_their_health_and_an_unhealthy_locality_overrides_it() {
    let listed = |last| {
        vec![
            endpoint(&format!("10.0.{last}.1:80"), Health::Ready),
            endpoint(&format!("10.0.{last}.2:80"), Health::NotReady),
            endpoint(&format!("10.0.{last}.3:80"), Health::Draining),
        ]
    };
    let mut dead = planned(&place("b"), 7);
    dead.unhealthy = true;
    let assignment = assignment(service(
        vec![vec![planned(&place("a"), 3)], vec![dead]],
        [(place("a"), listed(1)), (place("b"), listed(2))],
    ));
    let health: Vec<Vec<HealthStatus>> = assignment
        .endpoints
        .iter()
        .map(|locality| {
            locality.lb_endpoints.iter().map(|it| HealthStatus::try_from(it.health_status).unwrap()).collect()
        })
        .collect();
    assert_eq!(
        health,
        [
            vec![HealthStatus::Healthy, HealthStatus::Unhealthy, HealthStatus::Draining],
            vec![HealthStatus::Unhealthy; 3]
        ]
    );
    let locality = assignment.endpoints[0].locality.as_ref().unwrap();
    assert_eq!((&*locality.region, &*locality.zone, &*locality.sub_zone), ("us-east", "a", "use1-a"));
    assert_eq!(assignment.endpoints[0].load_balancing_weight.as_ref().unwrap().value, 3);
    assert!(assignment.policy.unwrap().overprovisioning_factor.unwrap().value >= 100_000);
}

#[test]
fn endpoints_with_shards_make_envoy_heed_a_requests_shard() {
    let listed = |shard: Option<&str>| vec![Endpoint { shard: shard.map(Arc::from), ..ready("10.0.0.1:80") }];
    let of = |shard| service(vec![vec![planned(&place("a"), 1)]], [(place("a"), listed(shard))]);
    for shard in [Some("eu"), None] {
        let said = assignment(of(shard)).endpoints[0].lb_endpoints[0]
            .metadata
            .clone()
            .map(|metadata| metadata.filter_metadata["envoy.lb"].fields["shard"].kind.clone().unwrap());
        assert_eq!(said, shard.map(|shard| ValueKind::StringValue(shard.to_owned())));
        for class in CLASSES {
            let served = Served::Present(Arc::new(of(shard)));
            let cluster: Cluster = decode(&encoded(Kind::Cds, "checkout.shop:8080", &served, class));
            let first = cluster.load_balancing_policy.as_ref().map(|all| type_of(&all.policies[0]));
            let subsets = first.is_some_and(|name| name.ends_with("subset.v3.Subset"));
            assert_eq!(subsets, class == ClientClass::Envoy && shard.is_some(), "{class:?}");
        }
    }
}

fn type_of(policy: &Policy) -> String {
    policy.typed_extension_config.as_ref().unwrap().typed_config.as_ref().unwrap().type_url.clone()
}

fn services() -> impl Strategy<Value = ServedService> {
    let health = prop::sample::select(vec![Health::Ready, Health::NotReady, Health::Draining]);
    let shard = prop::option::weighted(0.2, "[a-c]".prop_map(Arc::<str>::from));
    let endpoint = (0..12_u8, 1..5_u32, health, shard).prop_map(|(last, weight, health, shard)| Endpoint {
        address: ([10, 0, 0, last], 80).into(),
        weight: NonZeroU32::new(weight).unwrap(),
        health,
        shard,
    });
    // Endpoints of up to six localities; an address may stand in several, as the contract forbids and the world does.
    let localities = prop::collection::vec(prop::collection::vec(endpoint, 0..5), 6);
    let priorities = prop::collection::vec(0..4_usize, 6);
    (localities, priorities, any::<bool>()).prop_map(|(listed, priority_of, unhealthy)| {
        let place_of = |index: usize| place_in(["use1-a", "use1-b"][index % 2], ["a", "b", ""][index / 2]);
        let mut priorities = vec![Vec::new(); 4];
        for (index, priority) in priority_of.iter().enumerate() {
            let mut planned = planned(&place_of(index), 1 + u32::try_from(index).unwrap());
            planned.unhealthy = unhealthy && *priority == 3;
            priorities[*priority].push(planned);
        }
        service(priorities, listed.into_iter().enumerate().map(|(index, listed)| (place_of(index), listed)))
    })
}

proptest! {
    #[test]
    fn an_assignment_is_never_one_that_a_client_refuses(service in services()) {
        let listed: HashSet<_> = service.endpoints.values().flat_map(|listed| listed.iter().map(|it| it.address)).collect();
        let encoded = encoded(Kind::Eds, "checkout.shop:8080", &Served::Present(Arc::new(service)), ClientClass::GrpcGo);
        let assignment: ClusterLoadAssignment = decode(&encoded);
        let priorities: BTreeSet<u32> = assignment.endpoints.iter().map(|locality| locality.priority).collect();
        prop_assert!(priorities.iter().copied().eq(0..u32::try_from(priorities.len()).unwrap()), "no gap");
        prop_assert!(assignment.endpoints.is_sorted_by_key(|locality| locality.priority));
        let localities: HashSet<_> = assignment.endpoints.iter().map(|locality| format!("{:?}", locality.locality)).collect();
        prop_assert_eq!(localities.len(), assignment.endpoints.len(), "a locality once");
        let mut addresses = HashSet::new();
        for locality in &assignment.endpoints {
            prop_assert!(!locality.lb_endpoints.is_empty());
            prop_assert!(locality.load_balancing_weight.as_ref().unwrap().value > 0);
            for endpoint in &locality.lb_endpoints {
                prop_assert!(endpoint.load_balancing_weight.as_ref().unwrap().value > 0);
                prop_assert!(addresses.insert(format!("{:?}", endpoint.host_identifier)), "an address once");
            }
        }
        prop_assert_eq!(addresses.len(), listed.len(), "and none is lost");
        accepted(&encoded);
    }
}

proptest! {
    #[test]
    fn a_cluster_is_never_said_without_its_endpoints(service in services(), known in 0..3_u8) {
        // Without them Envoy asks for no listener, and a gRPC client for nothing more, for 15 seconds.
        let served = match known {
            0 => Served::NotYet,
            1 => Served::Absent,
            _ => Served::Present(Arc::new(service)),
        };
        for class in CLASSES {
            for asked in ["checkout.shop:8080", "http1/checkout.shop:8080", "no-backend"] {
                let said = |kind, asked: &str| {
                    let name = asked.parse::<ResourceName>().ok();
                    build(kind, &Arc::from(asked), name.as_ref(), &served, &Routes::None, class)
                };
                let Lookup::Present(encoded) = said(Kind::Cds, asked) else { continue };
                let cluster: Cluster = decode(&encoded);
                let endpoints = said(Kind::Eds, &cluster.eds_cluster_config.unwrap().service_name);
                prop_assert!(matches!(endpoints, Lookup::Present(_)), "{:?}: {}: {:?}", class, asked, endpoints);
            }
        }
    }

    #[test]
    fn grpc_java_is_led_away_from_a_service_that_nobody_serves_and_nobody_else_is(mut service in services()) {
        // By an assignment alone it would go on to the endpoints that it had.
        let listed = service.endpoints.values_mut().flat_map(Arc::make_mut);
        // The catalog lists an address once.
        listed.zip(80..).for_each(|(endpoint, port)| endpoint.address.set_port(port));
        let served = Served::Present(Arc::new(service));
        for class in CLASSES {
            let assignment: ClusterLoadAssignment =
                decode(&encoded(Kind::Eds, "checkout.shop:8080", &served, class));
            let listed = assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
            let usable = listed.filter(|it| it.health_status == i32::from(HealthStatus::Healthy)).count() > 0;
            let client::Decoded::RouteConfiguration(routes) =
                accepted(&encoded(Kind::Rds, "checkout.shop:8080", &served, class)) else { panic!() };
            let leads_to = &*routed_to(&routes, "checkout.shop");
            let expected = if class == ClientClass::GrpcJava && !usable { "no-backend" } else { "checkout.shop:8080" };
            prop_assert_eq!(leads_to, expected, "{:?}", class);
        }
    }

    #[test]
    fn a_change_that_is_not_built_makes_no_difference(before in services(), now in services()) {
        let (before, now) = (Served::Present(Arc::new(before)), Served::Present(Arc::new(now)));
        for kind in Kind::OF_SERVICES.into_iter().filter(|kind| is_unmoved(*kind, &before, &now)) {
            for class in CLASSES {
                let asked = if kind == Kind::Lds { "checkout.shop" } else { "checkout.shop:8080" };
                prop_assert_eq!(encoded(kind, asked, &before, class), encoded(kind, asked, &now, class), "{:?}", class);
            }
        }
    }
}

/// `checkout.shop` under a policy that says everything that routes and clusters carry.
fn limited(policy: EffectivePolicy) -> Served {
    let endpoints = vec![ready("10.0.0.1:80")];
    let plain = service(vec![vec![planned(&place("a"), 1)]], [(place("a"), endpoints)]);
    Served::Present(Arc::new(ServedService { policy: Arc::new(policy), ..plain }))
}

/// The only cluster that calls to a name go to.
fn routed_to(routes: &client::route::RouteConfig, name: &str) -> Arc<str> {
    let [route] = &*routes.find(name).unwrap().routes else { panic!("{routes:?}") };
    let [share] = &*route.forward.as_ref().unwrap().clusters else { panic!("{route:?}") };
    Arc::clone(&share.cluster)
}

fn route(policy: EffectivePolicy, class: ClientClass) -> Forward {
    let decoded = accepted(&encoded(Kind::Rds, "checkout.shop:8080", &limited(policy), class));
    let client::Decoded::RouteConfiguration(routes) = decoded else { panic!("{decoded:?}") };
    routes.virtual_hosts[0].routes[0].forward.clone().unwrap()
}

#[test]
fn a_policy_s_timeout_and_retries_are_what_clients_read() {
    let backoff = Backoff { base: Duration::from_millis(40), max: Duration::from_millis(1500) };
    let on = vec![RetryOn::Unavailable, RetryOn::ResourceExhausted];
    let retry = Retry { attempts: 3, on, backoff, ..Retry::default() };
    let timeout = Some(Duration::from_millis(2500));
    let policy = EffectivePolicy { timeout, retry: Some(retry), ..EffectivePolicy::default() };
    for class in CLASSES {
        let route = route(policy.clone(), class);
        assert_eq!(route.timeout, timeout, "{class:?}");
        let read = client_model::Retry {
            attempts: 3,
            on: vec![8, 14],
            base: backoff.base,
            max: backoff.max,
            per_try_timeout: None,
        };
        assert_eq!(route.retry, Some(read), "{class:?}");
    }
}

#[test]
fn without_a_policy_nothing_is_tried_again_and_nothing_times_out() {
    let nothing = Retry { attempts: 0, ..Retry::default() };
    let no_status = Retry { on: Vec::new(), ..Retry::default() };
    for retry in [None, Some(nothing), Some(no_status)] {
        for class in CLASSES {
            let route = route(EffectivePolicy { retry: retry.clone(), ..EffectivePolicy::default() }, class);
            // Envoy has to be told: zero is no limit.
            let none = class.may_be_envoy().then_some(Duration::ZERO);
            assert_eq!((route.timeout, route.retry), (none, None), "{class:?} {retry:?}");
        }
    }
}

#[test]
fn grpc_reads_its_timeout_where_envoy_does_not() {
    let policy = EffectivePolicy { timeout: Some(Duration::from_secs(2)), ..EffectivePolicy::default() };
    for (class, of_envoy, of_grpc) in [
        (ClientClass::Envoy, true, false),
        (ClientClass::GrpcGo, false, true),
        (ClientClass::Portolan, false, true),
        (ClientClass::Unknown, true, true),
    ] {
        let routes: RouteConfiguration =
            decode(&encoded(Kind::Rds, "checkout.shop:8080", &limited(policy.clone()), class));
        let Some(Action::Route(action)) = routes.virtual_hosts[0].routes[0].action.clone() else { panic!("no route") };
        assert_eq!((action.timeout.is_some(), action.max_stream_duration.is_some()), (of_envoy, of_grpc), "{class:?}");
    }
}

#[test]
fn a_policy_s_limit_of_requests_reaches_the_cluster() {
    for (given, wanted) in [(Some(7), 7), (None, 100_000)] {
        let mut policy = EffectivePolicy::default();
        policy.connection.max_requests = given.unwrap_or(policy.connection.max_requests);
        for class in CLASSES {
            let decoded = accepted(&encoded(Kind::Cds, "checkout.shop:8080", &limited(policy.clone()), class));
            let client::Decoded::Cluster(cluster) = decoded else { panic!("{decoded:?}") };
            assert_eq!(cluster.max_requests, Some(wanted), "{class:?}");
        }
    }
}

fn cluster_under(policy: EffectivePolicy, class: ClientClass) -> Cluster {
    let resource = encoded(Kind::Cds, "checkout.shop:8080", &limited(policy), class);
    accepted(&resource);
    decode(&resource)
}

/// The least_request policy of a Cluster, whether at the top or within localities.
fn least_request(cluster: &Cluster) -> LeastRequest {
    let first = |policies: &[Policy]| {
        policies[0].typed_extension_config.clone().unwrap().typed_config.expect("every policy has a config")
    };
    let outer = first(&cluster.load_balancing_policy.as_ref().unwrap().policies);
    if outer.type_url.ends_with("LeastRequest") {
        return LeastRequest::decode(outer.value.as_slice()).unwrap();
    }
    let within = WrrLocality::decode(outer.value.as_slice()).unwrap().endpoint_picking_policy.unwrap();
    LeastRequest::decode(first(&within.policies).value.as_slice()).unwrap()
}

#[test]
fn a_policy_s_limits_of_connections_reach_the_cluster() {
    let connection =
        Connection { connect_timeout: Duration::from_millis(2500), max_requests: 7, max_pending_requests: 3 };
    for class in CLASSES {
        let cluster = cluster_under(EffectivePolicy { connection, ..EffectivePolicy::default() }, class);
        let timeout = cluster.connect_timeout.unwrap();
        assert_eq!((timeout.seconds, timeout.nanos), (2, 500_000_000), "{class:?}");
        let limits = &cluster.circuit_breakers.unwrap().thresholds[0];
        assert_eq!(limits.max_pending_requests.as_ref().unwrap().value, 3, "{class:?}");
    }
}

#[test]
fn a_warm_up_is_the_slow_start_of_those_that_have_one() {
    let warmup =
        Warmup { hold: Duration::from_secs(5), window: Duration::from_secs(30), aggression: 1.5, min_percent: 20 };
    for class in [ClientClass::Envoy, ClientClass::Portolan, ClientClass::GrpcGo, ClientClass::GrpcJava] {
        let policy = EffectivePolicy { warmup: Some(warmup), ..EffectivePolicy::default() };
        let slow = least_request(&cluster_under(policy, class)).slow_start_config;
        let Some(slow) = slow else {
            assert!(class.is_stock_grpc(), "{class:?}");
            continue;
        };
        assert_eq!(slow.slow_start_window.unwrap().seconds, 30);
        assert_eq!(slow.aggression.unwrap().default_value, 1.5);
        assert_eq!(slow.min_weight_percent.unwrap().value, 20.0);
        assert!(!class.is_stock_grpc(), "{class:?}");
    }
    let without = cluster_under(EffectivePolicy::default(), ClientClass::Envoy);
    assert_eq!(least_request(&without).slow_start_config, None);
}

#[test]
fn outlier_detection_is_said_as_each_client_can_read_it() {
    let detection = OutlierDetection { consecutive_errors: 3, max_ejection_percent: 30, ..OutlierDetection::default() };
    for class in CLASSES {
        let policy = EffectivePolicy { outlier_detection: Some(detection), ..EffectivePolicy::default() };
        let said = cluster_under(policy, class).outlier_detection.unwrap();
        assert_eq!(said.max_ejection_percent.unwrap().value, 30, "{class:?}");
        assert_eq!(said.interval.unwrap().seconds, 1, "{class:?}");
        // gRPC has none for errors in a row: so many calls of which most failed.
        let errors = if class.is_stock_grpc() {
            assert_eq!(said.enforcing_failure_percentage.unwrap().value, 100, "{class:?}");
            assert!(said.consecutive_5xx.is_none(), "{class:?}");
            said.failure_percentage_request_volume
        } else {
            said.consecutive_5xx
        };
        assert_eq!(errors.unwrap().value, 3, "{class:?}");
        // What only compares endpoints is promised to nobody.
        assert_eq!(said.enforcing_success_rate.unwrap().value, 0, "{class:?}");
    }
}

#[test]
fn one_try_s_time_and_the_retry_budget_reach_those_that_have_them() {
    let retry = Retry { per_try_timeout: Some(Duration::from_millis(500)), budget_percent: 10, ..Retry::default() };
    for class in CLASSES {
        let policy = EffectivePolicy { retry: Some(retry.clone()), ..EffectivePolicy::default() };
        let routes: RouteConfiguration =
            decode(&encoded(Kind::Rds, "checkout.shop:8080", &limited(policy.clone()), class));
        let Some(Action::Route(action)) = routes.virtual_hosts[0].routes[0].action.clone() else { panic!("no route") };
        let tried = action.retry_policy.unwrap().per_try_timeout;
        let budget = cluster_under(policy, class).circuit_breakers.unwrap().thresholds[0].retry_budget;
        assert_eq!(tried.map(|time| time.nanos), (!class.is_stock_grpc()).then_some(500_000_000), "{class:?}");
        let percent = budget.map(|budget| budget.budget_percent.unwrap().value);
        assert_eq!(percent, (!class.is_stock_grpc()).then_some(10.0), "{class:?}");
    }
}

#[test]
fn envoy_is_told_to_try_elsewhere_what_never_reached_a_server_as_grpc_does_by_itself() {
    let asked = Retry { attempts: 2, on: vec![RetryOn::Unavailable], ..Retry::default() };
    for class in CLASSES {
        for (retry, reasons, tries) in [
            (None, "connect-failure,refused-stream,reset-before-request", 6),
            (Some(asked.clone()), "unavailable,connect-failure,refused-stream,reset-before-request", 2),
        ] {
            let policy = EffectivePolicy { retry: retry.clone(), ..EffectivePolicy::default() };
            let routes: RouteConfiguration =
                decode(&encoded(Kind::Rds, "checkout.shop:8080", &limited(policy.clone()), class));
            let Some(Action::Route(action)) = routes.virtual_hosts[0].routes[0].action.clone() else {
                panic!("no route")
            };
            let max_retries = cluster_under(policy, class).circuit_breakers.unwrap().thresholds[0].max_retries;
            if class == ClientClass::Envoy {
                let told = action.retry_policy.unwrap();
                assert_eq!((told.retry_on.as_str(), told.num_retries.unwrap().value), (reasons, tries));
                assert!(told.retry_priority.is_some() && told.retry_host_predicate.len() == 1);
                assert_eq!(max_retries.is_some(), retry.is_none(), "a budget is a limit, too");
            } else {
                let told = action.retry_policy.map(|told| (told.retry_on, told.retry_priority.is_some()));
                assert_eq!(told, retry.map(|_| ("unavailable".to_owned(), false)), "{class:?}");
                assert_eq!(max_retries, None, "{class:?}");
            }
        }
    }
}

#[test]
fn our_own_client_reads_the_whole_policy_back() {
    let warmup =
        Warmup { hold: Duration::from_secs(5), window: Duration::from_secs(30), aggression: 1.5, min_percent: 20 };
    let detection = OutlierDetection {
        consecutive_errors: 3,
        interval: Duration::from_secs(2),
        base_ejection_time: Duration::from_secs(20),
        max_ejection_percent: 30,
        eject_whole_locality: false,
    };
    let policy = EffectivePolicy {
        warmup: Some(warmup),
        outlier_detection: Some(detection),
        retry: Some(Retry { budget_percent: 10, ..Retry::default() }),
        ..EffectivePolicy::default()
    };
    let decoded = accepted(&encoded(Kind::Cds, "checkout.shop:8080", &limited(policy), ClientClass::Portolan));
    let client::Decoded::Cluster(cluster) = decoded else { panic!("{decoded:?}") };
    let expected = client_model::Warmup { window: warmup.window, aggression: 1.5, least: 0.2 };
    assert_eq!((cluster.warmup, cluster.retry_percent), (expected, 10));
    let expected = client_model::OutlierDetection {
        consecutive_errors: 3,
        interval: detection.interval,
        base_ejection_time: detection.base_ejection_time,
        max_ejection_percent: 30,
        eject_whole_locality: false,
    };
    assert_eq!(cluster.outlier_detection, expected);
}

/// The names of a list's policies, what stands within localities in parentheses.
fn names(policies: &[Policy]) -> String {
    let name = |policy: &Policy| {
        let config = policy.typed_extension_config.as_ref().unwrap();
        let name = config.name.trim_start_matches("envoy.load_balancing_policies.");
        if name != "wrr_locality" {
            return name.to_owned();
        }
        let within = WrrLocality::decode(config.typed_config.as_ref().unwrap().value.as_slice()).unwrap();
        format!("({})", names(&within.endpoint_picking_policy.unwrap().policies))
    };
    policies.iter().map(name).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_header_that_holds_a_call_s_key_is_what_every_client_is_told_to_hash() {
    let policy = EffectivePolicy {
        strategy: Balancer::RingHash,
        hash_header: Some("x-session".to_owned()),
        ..EffectivePolicy::default()
    };
    for class in CLASSES {
        let on = HashOn::Header { name: "x-session".to_owned(), rewrite: None };
        assert_eq!(route(policy.clone(), class).hash, [HashPolicy { on, terminal: false }], "{class:?}");
        assert_eq!(route(EffectivePolicy::default(), class).hash, [], "{class:?}");
    }
    // Envoy's own words for what gRPC does by itself, and for what it never does.
    let cluster = cluster_under(policy, ClientClass::Envoy);
    let list = cluster.load_balancing_policy.unwrap().policies;
    let config = list[0].typed_extension_config.as_ref().unwrap().typed_config.as_ref().unwrap();
    let ring = RingHash::decode(config.value.as_slice()).unwrap();
    assert!(ring.locality_weighted_lb_config.is_some());
    let factor = ring.consistent_hashing_lb_config.unwrap().hash_balance_factor.unwrap();
    assert_eq!(factor.value, 125);
}

#[test]
fn each_client_gets_a_policy_s_strategy_or_what_comes_nearest() {
    use client_model::Balancing;
    let least = "(least_request round_robin) round_robin";
    let weighted = "(client_side_weighted_round_robin round_robin) round_robin";
    let (ring, maglev) = (Balancing::RingHash(Default::default()), Balancing::Maglev(Default::default()));
    for (strategy, envoy, stock, ours, read) in [
        (Balancer::LeastRequest, "least_request", least, least, Balancing::LeastRequest),
        (Balancer::RoundRobin, "round_robin", "(round_robin) round_robin", least, Balancing::LeastRequest),
        (
            Balancer::WeightedRoundRobin,
            "(client_side_weighted_round_robin) least_request",
            weighted,
            weighted,
            Balancing::WeightedRoundRobin(Default::default()),
        ),
        (Balancer::PeakEwma, "least_request", least, "PeakEwma", Balancing::PeakEwma),
        (Balancer::RingHash, "ring_hash", "ring_hash round_robin", "ring_hash round_robin", ring),
        (Balancer::Maglev, "maglev", "ring_hash round_robin", "maglev round_robin", maglev),
        (Balancer::HotCold, "least_request", least, "HotCold", Balancing::HotCold),
        (Balancer::RequestCost, "least_request", least, "RequestCost", Balancing::RequestCost),
        (Balancer::PrefixAffinity, "least_request", least, "PrefixAffinity", Balancing::PrefixAffinity),
    ] {
        for class in CLASSES {
            let policy = EffectivePolicy { strategy, ..EffectivePolicy::default() };
            let cluster = cluster_under(policy.clone(), class);
            let given = cluster.load_balancing_policy.map(|list| names(&list.policies)).unwrap_or_default();
            let expected = match class {
                ClientClass::Envoy => envoy.to_owned(),
                ClientClass::Unknown => String::new(),
                ClientClass::Portolan if ours.ends_with("round_robin") => ours.to_owned(),
                ClientClass::Portolan => format!("(portolan.{ours} least_request round_robin) round_robin"),
                _ => stock.to_owned(),
            };
            assert_eq!(given, expected, "{strategy:?} for {class:?}");
            if class == ClientClass::Portolan {
                let decoded = accepted(&encoded(Kind::Cds, "checkout.shop:8080", &limited(policy), class));
                let client::Decoded::Cluster(cluster) = decoded else { panic!("{decoded:?}") };
                assert_eq!(cluster.balancing, std::slice::from_ref(&read), "{strategy:?}");
            }
        }
    }
}
