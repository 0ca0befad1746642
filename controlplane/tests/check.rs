//! `portolan check` as people run it, against two control planes on loopback.

#![expect(clippy::unwrap_used, reason = "what a test cannot set up fails it")]

#[expect(dead_code, reason = "nobody asks over xDS here")]
mod common;

use std::process::Stdio;
use std::sync::Arc;

use portolan_controlplane::Running;
use portolan_federation::certs;
use portolan_federation::model::Remote;
use portolan_federation::policy::Standing;

use common::{LIMIT, Site};

/// Runs it, and hands back its exit status, and its lines with what differs from run to run taken out.
async fn check(site: &Site, arguments: &[&str]) -> (i32, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_portolan"));
    command.arg("check").args(arguments).current_dir(site.path("")).env_clear().stdin(Stdio::null());
    let output = tokio::time::timeout(LIMIT, command.output()).await.unwrap().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

/// The same text with the ports and hashes of this run as words.
fn plain(text: &str, site: &Site, running: &[&Running]) -> String {
    let topology = std::fs::read_to_string(site.path("topology.yaml")).unwrap();
    let (topology, _) = portolan_topology::topology::Topology::parse("topology.yaml", &topology).unwrap();
    let mut text = text.replace(&topology.short_hash(), "HASH");
    for (cluster, running) in topology.clusters().zip(running) {
        text = text.replace(&format!("127.0.0.1:{}", cluster.control_plane.port), &format!("PEERS-{}", cluster.name));
        text = text.replace(&running.addresses().admin.to_string(), &format!("ADMIN-{}", cluster.name));
    }
    text.replace(&site.path("").display().to_string(), "SITE/")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federation_that_is_well_and_one_that_is_not() {
    let mut site = Site::new().await;
    for (cluster, zone) in [("east-a", "e1"), ("west-a", "w1")] {
        site.write(cluster, &[(zone, "127.0.0.1", true)]);
    }
    let (east, west) = (site.start("east-a").await, site.start("west-a").await);
    let heard = async {
        let (mut remote, mut standing) = (east.federation().remote(), east.federation().policy().standing());
        let told = |remote: &Arc<Remote>| remote.clusters.values().all(|cluster| cluster.topology_hash.is_some());
        remote.wait_for(told).await.unwrap();
        let answer = |standing: &Standing| standing.leader.is_some() && standing.reach.answering == 1;
        standing.wait_for(answer).await.unwrap();
    };
    tokio::time::timeout(LIMIT, heard).await.unwrap();
    let admin = east.addresses().admin.to_string();
    let files = certs::files_of(&site.path("certs"), &"east-a".parse().unwrap());
    let (cert, key, ca) = (files.cert.display().to_string(), files.key.display().to_string(), files.ca);
    let ca = ca.display().to_string();
    let tls = ["--tls-cert", &cert, "--tls-key", &key, "--tls-ca", &ca];
    let plain_check = ["--topology", "topology.yaml", "--cluster", "east-a", "--address", &admin];
    let (status, said) = check(&site, &[&plain_check[..], &tls].concat()).await;
    let sole = "1 of 1 voters are in region `east`: while it is lost, policy cannot be written → portolan topology \
                check shows the place";
    let well = format!(
        "✓ file       topology.yaml: test HASH, 2 clusters
! file       topology.yaml:6:12: {sole}
✓ version    portolan-0 runs 0.1.0, as this program is
✓ readiness  portolan-0 is ready
✓ source     files:SITE/east-a
✓ policy     east-a leads, 1 of 1 voters answer
✓ topology   test HASH, the same wherever it was heard
✓ clusters   west-a is heard
✓ peers      west-a: PEERS-west-a answers as west-a, and takes our certificate
✓ clocks     west-a and this machine agree
9 good, 1 to look at, 0 to mend
"
    );
    assert_eq!(plain(&said, &site, &[&east, &west]), well);
    assert_eq!(status, 0);
    let strict = [&plain_check[..], &["--strict"]].concat();
    let (status, said) = check(&site, &strict).await;
    assert_eq!(status, 1);
    assert!(said.ends_with("portolan: 1 check failed\n"), "{said}");

    // As west-a, whose certificate is not east-a's; and with a file that nobody runs.
    let text = std::fs::read_to_string(site.path("topology.yaml")).unwrap();
    std::fs::write(site.path("other.yaml"), text.replace("weight: 1", "weight: 2").replace("test", "other")).unwrap();
    let other = ["--topology", "other.yaml", "--cluster", "east-a", "--address", &admin];
    let (status, said) = check(&site, &[&other[..], &tls].concat()).await;
    assert_eq!(status, 1);
    assert!(said.contains("✗ topology   east-a runs "), "{said}");
    assert!(said.contains(" → give the cluster this file (helm upgrade)\n"), "{said}");
    assert!(said.contains("✗ peers      west-a: "), "{said}");
    assert!(
        said.contains(
            ": the certificate is for spiffe://test/cluster/west-a; expected spiffe://other/cluster/west-a → both \
             clusters' certificates must come from one CA and carry the cluster's SPIFFE id\n"
        ),
        "{said}"
    );
    assert!(said.ends_with("portolan: 2 checks failed\n"), "{said}");

    east.stop().await;
    let (status, said) = check(&site, &plain_check).await;
    assert_eq!(status, 1);
    assert!(said.contains("✗ control plane  no control plane answers at "), "{said}");
    assert!(said.contains("✓ peers          west-a: "), "{said}");
    // Before an install nobody has to answer; and without a topology there is Kubernetes or nothing.
    let (status, said) = check(&site, &["--pre", "--topology", "topology.yaml", "--cluster", "east-a"]).await;
    assert_eq!((status, said.contains("control plane")), (0, false), "{said}");
    let (status, said) = check(&site, &["--pre"]).await;
    assert_eq!(status, 1);
    assert!(said.starts_with("✗ API server  no Kubernetes API server is known"), "{said}");
    west.stop().await;
}
