//! Whole control planes, from manifests to what an xDS client is sent, and how clients are told where they are.

#![expect(clippy::unwrap_used, reason = "what a test cannot set up fails it")]

mod common;

use std::process::Stdio;
use std::sync::Arc;

use common::{AdsClient, LIMIT, Site, get, get_json, spoil, start};
use portolan_client::Channel;
use portolan_client::xds::bootstrap::{Bootstrap, Origin};
use portolan_controlplane::Running;
use portolan_federation::disk::MemoryDisk;
use serde_json::json;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_gets_what_the_manifests_say_and_explain_says_the_same() {
    let mut site = Site::new().await;
    site.write(
        "east-a",
        &[("e1", "10.0.0.1", true), ("e1", "10.0.0.2", false), ("e1", "10.0.0.3", false), ("e2", "10.0.0.4", true)],
    );
    let east = site.start("east-a").await;
    let mut client = AdsClient::connect(&east, "e1", "a.shop:8080").await;
    let lines = client.next().await;
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("0 e1/east-a "), "{lines:?}");
    assert!(lines[0].ends_with(" 10.0.0.1 10.0.0.2! 10.0.0.3!"), "{lines:?}");
    // A third of a zone carries 1.4 thirds of its load; the next zone takes the rest.
    let weight = |line: &str| line.split(' ').nth(2).unwrap().parse::<f64>().unwrap();
    let sent = weight(&lines[0]) / (weight(&lines[0]) + weight(&lines[1]));
    assert!((sent - 1.4 / 3.0).abs() < 0.01, "{sent}");

    let explained = get_json(&east, "/api/v1/explain/a.shop?from=e1").await;
    assert_eq!(explained["watched"], true);
    let shares = &explained["plan"]["priorities"][0];
    assert!((shares[0]["share"].as_f64().unwrap() - sent).abs() < 1e-9, "{shares}");
    assert_eq!(shares[0]["weight"].as_f64().unwrap(), weight(&lines[0]));

    site.write("east-a", &[("e1", "10.0.0.1", false), ("e2", "10.0.0.4", true)]);
    let lines = client.until(|lines| lines.len() == 2 && lines[0].contains("e2/east-a")).await;
    assert!(lines[0].ends_with(" 10.0.0.4"), "{lines:?}");
    assert!(lines[1].ends_with(" 10.0.0.1!"), "{lines:?}");
    east.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_clusters_endpoints_arrive_on_demand_and_outlive_its_control_plane() {
    let mut site = Site::new().await;
    site.write("west-a", &[("w1", "10.1.0.1", true)]);
    let east = site.start("east-a").await;
    let west = site.start("west-a").await;
    let mut client = AdsClient::connect(&east, "e1", "a.shop:8080").await;
    let lines = client.until(|lines| !lines.is_empty()).await;
    assert_eq!(lines, ["0 w1/west-a 10000 10.1.0.1"]);
    west.stop().await;
    // Our own endpoints come; the other cluster's are still there behind them.
    site.write("east-a", &[("e1", "10.0.0.1", true)]);
    let lines = client.until(|lines| lines.len() == 2).await;
    assert_eq!(lines.iter().map(|line| line.split(' ').nth(3).unwrap()).collect::<Vec<_>>(), ["10.0.0.1", "10.1.0.1"]);
    east.stop().await;
}

/// How many clients of the control plane of `cluster` refuse something, as `of` says.
async fn nacked(of: &Running, cluster: &str) -> Option<u64> {
    let status = get_json(of, "/api/v1/status").await;
    let shown = status["clusters"].as_array().unwrap().iter().find(|shown| shown["name"] == cluster).unwrap();
    shown["nacked"].as_u64()
}

async fn until_nacked(of: &Running, cluster: &str, wanted: u64) {
    let seen = async {
        while nacked(of, cluster).await != Some(wanted) {
            // It comes by gossip, which has no event that shows here.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let seen = tokio::time::timeout(LIMIT, seen).await;
    seen.unwrap_or_else(|_| panic!("{cluster} never has {wanted} clients that refuse"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_refuses_is_counted_wherever_status_is_asked() {
    let mut site = Site::new().await;
    site.write("east-a", &[("e1", "10.0.0.1", true)]);
    let east = site.start("east-a").await;
    let west = site.start("west-a").await;
    let mut client = AdsClient::connect(&east, "e1", "a.shop:8080").await;
    let mut content = AdsClient::connect(&east, "e1", "a.shop:8080").await;
    client.next().await;
    content.next().await;
    until_nacked(&west, "east-a", 0).await;
    site.write("east-a", &[("e1", "10.0.0.2", true)]);
    client.refuse().await;
    content.next().await;
    until_nacked(&west, "east-a", 1).await;
    until_nacked(&east, "east-a", 1).await;
    assert_eq!(nacked(&west, "west-a").await, Some(0));
    let status = get_json(&east, "/api/v1/status").await;
    assert_eq!((&status["clients"], &status["clientsRefusing"]), (&json!(2), &json!(1)));
    // It takes what comes next…
    site.write("east-a", &[("e1", "10.0.0.3", true)]);
    client.until(|lines| lines.iter().any(|line| line.ends_with("10.0.0.3"))).await;
    until_nacked(&west, "east-a", 0).await;
    // … and whoever has gone refuses nothing any more.
    site.write("east-a", &[("e1", "10.0.0.4", true)]);
    client.refuse().await;
    until_nacked(&west, "east-a", 1).await;
    drop(client);
    until_nacked(&west, "east-a", 0).await;
    east.stop().await;
    west.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_files_at_run_time_leave_the_last_good_state_and_show() {
    let mut site = Site::new().await;
    site.write("east-a", &[("e1", "10.0.0.1", true)]);
    let east = site.start("east-a").await;
    let mut client = AdsClient::connect(&east, "e1", "a.shop:8080").await;
    let before = client.next().await;
    spoil(&site.path("east-a").join("a.yaml"));
    spoil(&site.path("topology.yaml"));
    let refused = async {
        loop {
            let status = get_json(&east, "/api/v1/status").await;
            let files = status["source"]["errors"].as_object().unwrap().len();
            if files == 1 && status["topology"]["error"].is_string() {
                return status;
            }
            // The files are looked at all the time; how often is not what is tested here.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let status = tokio::time::timeout(LIMIT, refused).await.unwrap();
    assert_eq!(status["clusters"][0]["ready"], 1);
    let (_, metrics) = get(east.addresses().metrics, "/metrics").await;
    assert!(metrics.contains("\nportolan_source_errors 1.0\n"), "{metrics}");
    assert!(metrics.contains("\nportolan_topology_refused 1.0\n"), "{metrics}");
    let mut second = AdsClient::connect(&east, "e1", "a.shop:8080").await;
    assert_eq!(second.next().await, before);
    east.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ready_means_that_the_own_source_was_read_whole() {
    let mut site = Site::new().await;
    spoil(&site.path("east-a").join("a.yaml"));
    let config = site.config("east-a");
    let east = start(config, Arc::new(MemoryDisk::default())).await.unwrap();
    let metrics = east.addresses().metrics;
    assert_eq!(get(metrics, "/livez").await, (200, "ok\n".to_owned()));
    assert_eq!(get(metrics, "/readyz").await, (503, "not ready: source: the first complete listing\n".to_owned()));
    site.write("east-a", &[]);
    tokio::time::timeout(LIMIT, east.readiness().wait()).await.unwrap();
    assert_eq!(get(metrics, "/readyz").await, (200, "ok\n".to_owned()));
    assert_eq!(get(metrics, "/api/v1/status").await.0, 404, "questions are for the admin port");
    east.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_in_use_ends_the_start_with_its_flag() {
    let mut site = Site::new().await;
    let east = site.start("east-a").await;
    let mut config = site.config("west-a");
    config.xds.address = east.addresses().xds;
    let error = start(config, Arc::new(MemoryDisk::default())).await.err().unwrap().to_string();
    assert!(error.starts_with(&format!("cannot listen at {} for xDS clients", east.addresses().xds)), "{error}");
    assert!(error.ends_with("give another address with --xds-addr"), "{error}");
    east.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_that_mean_nothing_are_answered_with_a_mend() {
    let mut site = Site::new().await;
    site.write("east-a", &[("e1", "10.0.0.1", true)]);
    let east = site.start("east-a").await;
    let admin = east.addresses().admin;
    for (path, status, error) in [
        (
            "/api/v1/explain/payments.billing?from=e1",
            404,
            "no service `payments.billing` is known; `portolan services` shows those that there are",
        ),
        ("/api/v1/explain/a.shopp?from=e1", 404, "no service `a.shopp` is known; did you mean `a.shop`?"),
        (
            "/api/v1/explain/a.shop:81?from=e1",
            404,
            "the service `a.shop` has no such port, or none in that scope: `a.shop:81`",
        ),
        ("/api/v1/explain/a.shop?from=e9", 404, "the topology has no zone `e9`"),
        ("/api/v1/explain/a.shop?from=w1&cluster=east-a", 400, "cluster `east-a` does not span the zone `w1`"),
        ("/api/v1/explain/a.shop", 400, "from which zone? add `from`, such as ?from=us-east-1a"),
        ("/api/v1/explain/a?from=e1", 400, "`a` is not a service: expected SERVICE.NAMESPACE, such as `checkout.shop`"),
        ("/api/v1/explain/cluster/east-b", 404, "no cluster `east-b` is known; did you mean `east-a`?"),
    ] {
        let (found, body) = get(admin, path).await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((found, &body["error"]), (status, &json!(error)), "{path}");
    }
    east.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grpc_bootstrap_works_as_printed() {
    let backend = TcpIncoming::bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = backend.local_addr().unwrap();
    let (_, health) = tonic_health::server::health_reporter();
    tokio::spawn(Server::builder().add_service(health).serve_with_incoming(backend));

    let mut site = Site::new().await;
    site.write("east-a", &[("e1", "127.0.0.1", true)]);
    let file = site.path("east-a").join("a.yaml");
    let text = std::fs::read_to_string(&file).unwrap().replace("9090", &address.port().to_string());
    std::fs::write(&file, text).unwrap();
    let east = site.start("east-a").await;

    let admin = east.addresses().admin.to_string();
    let printed = tokio::process::Command::new(env!("CARGO_BIN_EXE_portolan"))
        .args(["bootstrap", "grpc", "--zone", "e2", "--address", &admin])
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let text = String::from_utf8(printed.stdout).unwrap();
    let bootstrap = Bootstrap::parse(&text, Origin::Variable).unwrap();
    assert_eq!(bootstrap.node.id, "grpc-e2");

    let channel = Channel::builder("xds:///a.shop").bootstrap(bootstrap).build().unwrap();
    let mut client = HealthClient::new(channel);
    let request = HealthCheckRequest { service: String::new() };
    let answer = tokio::time::timeout(LIMIT, client.check(request)).await.unwrap().unwrap();
    assert_eq!(answer.into_inner().status, 1, "SERVING");
    let clients = get_json(&east, "/api/v1/clients").await;
    assert_eq!(clients["clients"][0]["locality"]["zone"], "e2");
    east.stop().await;
}
