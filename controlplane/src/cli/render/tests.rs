//! Golden tests: exactly what people see.

use std::num::NonZeroU32;

use portolan_topology::names::Locality;
use portolan_topology::plan::{Omitted, OmittedBecause, Route};
use serde_json::json;

use super::*;

fn cluster(name: &str, region: &str, own: bool) -> ClusterShown {
    ClusterShown {
        name: name.parse().unwrap(),
        region: Some(region.parse().unwrap()),
        zones: Vec::new(),
        own,
        state: Liveness::Fresh,
        heard_ms: None,
        complete: true,
        services: 12,
        ready: 120,
        total: 120,
        utilization_percent: Some(61),
        policy: Some(serde_json::from_value(json!({"revision": 42, "role": "leader"})).unwrap()),
        topology: Some("9f3c".into()),
        nacked: Some(0),
    }
}

fn a_status() -> Status {
    let silent = ClusterShown {
        state: Liveness::Stale,
        heard_ms: Some(74_300),
        ready: 80,
        total: 80,
        utilization_percent: None,
        policy: Some(serde_json::from_value(json!({"revision": 41, "role": "voter"})).unwrap()),
        nacked: None,
        ..cluster("usw2-a", "us-west", false)
    };
    let mut status: Status = serde_json::from_value(json!({
        "cluster": "use1-a", "node": "portolan-0", "version": "0.1.0", "uptimeSeconds": 7300, "notReady": [],
        "topology": {"name": "production", "hash": "9f3c", "file": "topology.yaml", "error": null, "warnings": []},
        "source": {"source": "files:manifests", "synced": true, "errors": {}, "warnings": {}},
        "certificate": {"expires": "2027-03-01T00:00:00Z", "expiresInSeconds": 7_000_000, "error": null},
        "addresses": {"peers": "127.0.0.1:7443", "xds": "127.0.0.1:7444", "admin": "127.0.0.1:7480",
                      "metrics": "127.0.0.1:7481"},
        "plaintextFrom": [],
        "policy": {"revision": 42, "group": "d3fa", "leader": "use1-a", "voters": 3, "answering": 3},
        "clusters": [], "duplicates": {}, "clients": 2, "clientsRefusing": 0,
    }))
    .unwrap();
    status.clusters = vec![cluster("use1-a", "us-east", true), silent];
    status
}

#[test]
fn status_as_the_manual_shows_it() {
    assert_eq!(
        status(&a_status(), false),
        "\
CLUSTER   REGION   STATE  HEARD  READY    UTIL  POLICY      TOPOLOGY
use1-a *  us-east  fresh  –      120/120  61%   r42 leader  9f3c
usw2-a    us-west  stale  74s    80/80    –     r41         9f3c
! usw2-a: nothing heard for 74s; its endpoints are still used. Next: portolan explain cluster=usw2-a
"
    );
}

#[test]
fn status_tells_what_is_amiss_with_gateways() {
    let mut amiss = a_status();
    let condition = serde_json::json!({
        "object": "HTTPRoute shop/r", "type": "ResolvedRefs", "status": false, "reason": "BackendNotFound",
        "message": "there is no Service shop/gone with the port 80",
    });
    amiss.gateway_troubles = vec![serde_json::from_value(condition).unwrap()];
    let told = "! HTTPRoute shop/r: ResolvedRefs no, BackendNotFound: there is no Service shop/gone with the port 80";
    assert_eq!(status(&amiss, false).lines().last(), Some(told));
}

#[test]
fn status_names_everything_that_needs_attention() {
    let mut bad = a_status();
    bad.clusters[1].state = Liveness::Failed;
    bad.clusters[1].topology = Some("0bad".into());
    bad.clusters[0].nacked = Some(1);
    bad.clusters[1].nacked = Some(2);
    bad.not_ready = ["source: the first complete listing".to_owned()].into();
    bad.topology.file.error = Some("topology.yaml:3:1: unknown field `x`\n  3 | x: 1\n    | ^".into());
    bad.source.errors =
        [("m/a.yaml".to_owned(), "m/a.yaml:1:7: unclosed bracket '['\n  1 | kind: [".to_owned())].into();
    bad.source.warnings =
        [("m/b.yaml".to_owned(), "Service shop/a stands in a.yaml too, which counts".to_owned())].into();
    bad.plaintext_from = vec!["10.0.0.0/8".into()];
    bad.addresses.xds_plaintext = Some("10.0.0.1:7445".parse().unwrap());
    bad.duplicates = serde_json::from_value(json!({"a.shop": [
        {"address": "10.0.0.1:80", "kept": {"region": "us-east", "zone": "z", "cluster": "use1-a"},
         "dropped": {"region": "us-west", "zone": null, "cluster": "usw2-a"}}]}))
    .unwrap();
    bad.source_silent_seconds = Some(74);
    bad.clients_refusing = 1;
    bad.policy.leader = None;
    bad.policy.answering = 1;
    let text = status(&bad, false);
    let notes: Vec<_> = text.lines().skip(3).collect();
    assert_eq!(
        notes,
        [
            "! usw2-a: nothing heard for 74s, and its endpoints do not answer; it gets no traffic. Next: portolan explain cluster=usw2-a",
            "! usw2-a: it runs another topology than we do",
            "! usw2-a: 2 of its clients refuse what they were sent",
            "! not ready: source: the first complete listing",
            "! the topology file is refused, an older one is in force: topology.yaml:3:1: unknown field `x`",
            "! files:manifests: not everything can be seen for 74s; what was seen last stands",
            "! m/a.yaml:1:7: unclosed bracket '['; its last good content stands",
            "! m/b.yaml: Service shop/a stands in a.yaml too, which counts",
            "! xDS is served in plain text at 10.0.0.1:7445 to 10.0.0.0/8",
            "! a.shop: 10.0.0.1:80 stands in z/use1-a and us-west/usw2-a; z/use1-a keeps it",
            "! 1 of 2 clients refuse what they were sent. Next: portolan clients",
            "! policy is read-only: no leader is known, 1 of 3 voters answer",
        ]
    );
}

#[test]
fn status_wide() {
    assert_eq!(
        status(&a_status(), true),
        "\
CLUSTER   REGION   STATE  HEARD  READY    UTIL  POLICY      TOPOLOGY  SERVICES  COMPLETE  NACKED
use1-a *  us-east  fresh  –      120/120  61%   r42 leader  9f3c      12        yes       0
usw2-a    us-west  stale  74s    80/80    –     r41 voter   9f3c      12        yes       –
! usw2-a: nothing heard for 74s; its endpoints are still used. Next: portolan explain cluster=usw2-a

control plane  use1-a/portolan-0 0.1.0, up 2h
source         files:manifests
topology       production 9f3c
policy         r42, leader use1-a, group d3fa, 3 of 3 voters answer
listens        xds 127.0.0.1:7444, peers 127.0.0.1:7443, admin 127.0.0.1:7480, metrics 127.0.0.1:7481
clients        2
"
    );
}

fn locality(region: &str, zone: &str, cluster: &str) -> Locality {
    Locality { region: region.parse().unwrap(), zone: Some(zone.parse().unwrap()), cluster: cluster.parse().unwrap() }
}

fn planned(
    locality: Locality,
    tier: Tier,
    ready: (u32, u32),
    carries: Carries,
    share: f64,
    because: Reason,
) -> PlannedLocality {
    let weight = NonZeroU32::new((10_000.0 * share) as u32).unwrap_or(NonZeroU32::MIN);
    let (ready, total) = ready;
    let unhealthy = ready == 0;
    PlannedLocality { locality, route: Route::Direct, weight, share, tier, ready, total, carries, because, unhealthy }
}

fn explained() -> Explained {
    let full = Reason::Full { demand: Some(1000.0), target_utilization_percent: Some(80) };
    let rps = Carries::RequestsPerSecond;
    let room = Reason::NearerHasRoom { tier: "region".into() };
    let first = vec![
        planned(locality("us-east", "us-east-1a", "use1-a"), Tier::Zone, (10, 10), rps(800.0), 0.8, full),
        planned(
            locality("us-east", "us-east-1b", "use1-a"),
            Tier::Region,
            (5, 10),
            rps(400.0),
            0.2,
            Reason::TakesExcess,
        ),
    ];
    let failover = Tier::Failover { percent: 70 };
    let second = vec![planned(locality("us-west", "us-west-2a", "usw2-a"), failover, (40, 40), rps(0.0), 0.0, room)];
    Explained {
        service: "checkout.shop".parse().unwrap(),
        port: 8080,
        client: locality("us-east", "us-east-1a", "use1-a"),
        watched: true,
        plan: Plan {
            service: "checkout.shop".parse().unwrap(),
            client: locality("us-east", "us-east-1a", "use1-a"),
            priorities: vec![first, second],
            omitted: Vec::new(),
        },
        duplicates: Vec::new(),
        waiting: [].into(),
        routes: 0,
    }
}

#[test]
fn explain_tells_that_a_service_has_routes() {
    let mut routed = explained();
    let before = explain(&routed, false);
    routed.routes = 3;
    let note = "! 3 routes (HTTPRoute, GRPCRoute) decide where calls to checkout.shop go: this is what becomes of those that come here\n";
    assert_eq!(explain(&routed, false), format!("{before}{note}"));
    routed.routes = 1;
    assert!(explain(&routed, false).contains("! 1 route (HTTPRoute, GRPCRoute) decides where calls"));
    assert!(!serde_json::to_string(&explained()).unwrap().contains("routes"), "none are not mentioned");
}

#[test]
fn explain_as_the_manual_shows_it() {
    assert_eq!(
        explain(&explained(), false),
        "\
TIER          LOCALITY           READY  CARRIES  SHARE  BECAUSE
zone          us-east-1a/use1-a  10/10  800 rps  80%    full: demand 1000 rps, target 80%
region        us-east-1b/use1-a  5/10   400 rps  20%    takes what the zone cannot
failover 70%  us-west-2a/usw2-a  40/40  –        0%     region has room
"
    );
}

#[test]
fn explain_tells_of_what_is_not_served() {
    let mut explained = explained();
    explained.watched = false;
    explained.waiting = [locality("us-west", "us-west-2b", "usw2-a")].into();
    explained.plan.omitted = vec![Omitted { cluster: "euw1-a".parse().unwrap(), because: OmittedBecause::NoRoute }];
    assert_eq!(
        explain(&explained, true),
        "\
TIER          LOCALITY           READY  CARRIES  SHARE  PRIORITY  WEIGHT  BECAUSE
zone          us-east-1a/use1-a  10/10  800 rps  80%    0         8000    full: demand 1000 rps, target 80%
region        us-east-1b/use1-a  5/10   400 rps  20%    0         2000    takes what the zone cannot
failover 70%  us-west-2a/usw2-a  40/40  –        0%     1         1       region has room
! euw1-a: no route: it is on another network and has no gateway
! us-west-2b/usw2-a: it has endpoints, but their list has not arrived yet
! no client there asks this control plane for it: this is what one would get
"
    );
}

#[test]
fn every_reason_reads_as_a_clause() {
    let plan = explained().plan;
    let here = || locality("us-west", "us-west-2a", "usw2-a");
    let said = |because| {
        let place =
            planned(here(), Tier::Failover { percent: 70 }, (4, 10), Carries::FractionOfLoad(0.56), 0.125, because);
        (super::because(&place, &plan), carries(&place), percent(place.share))
    };
    let drain = || "region-us-east".to_owned();
    for (because, clause) in [
        (Reason::Nearest, "nearest, and everything fits"),
        (Reason::Full { demand: None, target_utilization_percent: None }, "full: 4 of 10 ready"),
        (Reason::TakesExcess, "takes what the region cannot"),
        (Reason::NearerHasRoom { tier: "zone".into() }, "zone has room"),
        (Reason::ByWeight, "by weight"),
        (Reason::Overload, "no tier has room: load is spread by ready capacity"),
        (Reason::NothingReady, "nothing ready"),
        (Reason::Drained { drain: drain() }, "drained by region-us-east"),
        (Reason::DrainedButLast { drain: drain() }, "drained by region-us-east, but nothing else is left"),
        (Reason::ClusterFailed, "its cluster is failed"),
        (Reason::ClusterStale, "its cluster is silent: no more than it had"),
        (Reason::Ramping { from: 0.1, to: 0.7 }, "on its way from 10% to 70%"),
        (Reason::HeldDown, "back, and held down until it is steady"),
    ] {
        assert_eq!(said(because), (clause.to_owned(), "56%".to_owned(), "12.5%".to_owned()));
    }
}

#[test]
fn a_silent_cluster_is_explained() {
    let mut silent = a_status().clusters.remove(1);
    silent.complete = false;
    silent.topology = Some("0bad".into());
    let explained = ClusterExplained {
        because: crate::admin::words::cluster(&silent, "9f3c"),
        cluster: silent,
        from: "use1-a".parse().unwrap(),
        services: [("checkout.shop".parse().unwrap(), ReadyOfTotal { ready: 40, total: 40 })].into(),
        lists: 1,
    };
    assert_eq!(
        explain_cluster(&explained, false),
        "\
CLUSTER  REGION   STATE  HEARD  READY  UTIL  POLICY  TOPOLOGY
usw2-a   us-west  stale  74s    80/80  –     r41     0bad
nothing heard for 74s; its endpoints are still used, but get no more share than they had
not everything that it tells has arrived: what is missing here may exist there
it runs another topology: 0bad, ours is 9f3c

SERVICE        READY
checkout.shop  40/40
"
    );
}

#[test]
fn clients_and_their_refusals() {
    let synced = json!({"names": ["checkout.shop"], "state": "SYNCED", "stateMs": 60000, "sent": "a1", "accepted": "a1", "nack": null, "nackMs": null});
    let nacked = json!({"names": ["checkout.shop:8080"], "state": "NACKED", "stateMs": 4200, "sent": "b2", "accepted": "b1", "nack": "no such policy",
                        "nackMs": 4200});
    let shown: Clients = serde_json::from_value(json!({"clients": [
        {"stream": 1, "node": "cart-1", "userAgent": "gRPC Go", "version": "1.85.0", "address": "10.0.0.7:4000", "identity": null,
         "locality": {"region": "us-east", "zone": "us-east-1a", "cluster": "use1-a"}, "connectedMs": 61000,
         "subscriptions": {"LDS": synced, "CDS": nacked}},
        {"stream": 2, "node": "", "userAgent": "", "version": "", "address": null, "identity": null,
         "locality": {"region": "us-east", "zone": null, "cluster": "use1-a"}, "connectedMs": 900, "subscriptions": {}}]}))
    .unwrap();
    assert_eq!(
        clients(&shown, false),
        "\
CLIENT    AGENT           LOCALITY           CONNECTED  LDS         RDS  CDS        EDS
cart-1    gRPC Go 1.85.0  us-east-1a/use1-a  61s        SYNCED 60s  –    NACKED 4s  –
stream 2                  us-east/use1-a     0s         –           –    –          –
! cart-1 refused CDS 4s ago: no such policy
"
    );
    assert!(clients(&shown, true).contains("10.0.0.7:4000  –         checkout.shop,checkout.shop:8080\n"));
}

#[test]
fn a_gateway_shows_how_its_secrets_stand_too() {
    let held = |name: &str| json!({"names": [name], "state": "SYNCED", "stateMs": 60000, "sent": "a1", "accepted": "a1", "nack": null, "nackMs": null});
    let refused = json!({"names": ["shop/edge"], "state": "NACKED", "stateMs": 4200, "sent": "b2", "accepted": "b1",
                         "nack": "Failed to load certificate chain", "nackMs": 4200});
    let client = |stream: u64, node: &str, subscriptions: serde_json::Value| {
        json!({"stream": stream, "node": node, "userAgent": "envoy", "version": "1.40.0", "address": null, "identity": null,
               "locality": {"region": "us-east", "zone": "us-east-1a", "cluster": "use1-a"}, "connectedMs": 61000,
               "subscriptions": subscriptions})
    };
    let shown: Clients = serde_json::from_value(json!({"clients": [
        client(1, "edge-1", json!({"LDS": held("edge"), "SDS": refused})),
        client(2, "cart-1", json!({"EDS": held("cart.shop:80")}))]}))
    .unwrap();
    assert_eq!(
        clients(&shown, false),
        "\
CLIENT  AGENT         LOCALITY           CONNECTED  LDS         RDS  CDS  EDS         SDS
edge-1  envoy 1.40.0  us-east-1a/use1-a  61s        SYNCED 60s  –    –    –           NACKED 4s
cart-1  envoy 1.40.0  us-east-1a/use1-a  61s        –           –    –    SYNCED 60s  –
! edge-1 refused SDS 4s ago: Failed to load certificate chain
"
    );
}

#[test]
fn services_and_endpoints() {
    let shown: Services = serde_json::from_value(json!({"services": [
        {"service": "cart.shop", "ports": [{"number": 80, "name": null}], "clusters": {"use1-a": {"ready": 2, "total": 3}},
         "watched": false, "demand": null},
        {"service": "checkout.shop", "ports": [{"number": 8080, "name": "grpc"}, {"number": 9100, "name": "metrics"}],
         "clusters": {"use1-a": {"ready": 10, "total": 10}, "usw2-a": {"ready": 39, "total": 40}}, "watched": true, "demand": 999.6}]}))
    .unwrap();
    assert_eq!(
        services(&shown, false),
        "\
SERVICE        PORTS                   READY  CLUSTERS        DEMAND    WATCHED
cart.shop      80                      2/3    use1-a          –         no
checkout.shop  grpc:8080,metrics:9100  49/50  use1-a, usw2-a  1000 rps  yes
"
    );
    assert!(services(&shown, true).contains("use1-a 10/10, usw2-a 39/40"));
    let here = json!({"region": "us-east", "zone": "us-east-1a", "cluster": "use1-a"});
    let there = json!({"region": "us-west", "zone": "us-west-2a", "cluster": "usw2-a"});
    let shown: Endpoints = serde_json::from_value(json!({"service": "checkout.shop", "port": 8080, "client": here,
        "localities": [{"locality": here, "endpoints": [
            {"address": "10.0.0.1:9090", "weight": 1, "health": "ready"},
            {"address": "[fd00::1]:9090", "weight": 2, "health": "notReady"},
            {"address": "10.0.0.3:9090", "weight": 1, "health": "draining"}]}],
        "waiting": [there]}))
    .unwrap();
    assert_eq!(
        endpoints(&shown, false),
        "\
LOCALITY           ADDRESS         HEALTH     WEIGHT
us-east-1a/use1-a  10.0.0.1:9090   ready      1
us-east-1a/use1-a  [fd00::1]:9090  not ready  2
us-east-1a/use1-a  10.0.0.3:9090   draining   1
! us-west-2a/usw2-a: it has endpoints, but their list is not here: no client here asks for it
"
    );
}

#[test]
fn ages_are_short() {
    for (milliseconds, shown) in
        [(740, "0s"), (74_000, "74s"), (120_000, "2m"), (7_199_000, "119m"), (7_200_000, "2h"), (172_800_000, "2d")]
    {
        assert_eq!(age(milliseconds), shown);
    }
}

#[test]
fn a_certificate_that_nobody_renews_is_told() {
    let told = |seconds: i64, error: Option<&str>| {
        let mut told = a_status();
        told.clusters.truncate(1);
        told.certificate.expires_in_seconds = seconds;
        told.certificate.error = error.map(str::to_owned);
        status(&told, false).lines().skip(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(told(EXPIRES_SOON, None), [""; 0]);
    assert_eq!(told(EXPIRES_SOON - 1, None), ["! the certificate of use1-a expires in 2d"]);
    assert_eq!(told(-7_300, None), ["! the certificate of use1-a expired 2h ago"]);
    assert_eq!(
        told(EXPIRES_SOON, Some("key.pem: expected a private key in PEM: no items found")),
        ["! key.pem: expected a private key in PEM: no items found; the certificate in force stays"]
    );
}
