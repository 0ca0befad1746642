//! The `portolan` program: what it says and how it exits when it is used wrongly, and a control plane as a process.

#![expect(clippy::unwrap_used, reason = "what a test cannot set up fails it")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const TOPOLOGY: &str = "\
apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {name: test}
spec:
  regions:
  - {name: east, zones: [e1], clusters: [{name: east-a, controlPlane: {address: '127.0.0.1:1', voter: true}}]}
";

fn portolan(folder: &Path, arguments: &[&str]) -> Output {
    command(folder, arguments).output().unwrap()
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portolan"));
    command.current_dir(folder).args(arguments).env_clear().env("USER", "tester").stdin(Stdio::null());
    command
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("topology.yaml"), TOPOLOGY).unwrap();
    std::fs::create_dir(folder.path().join("m")).unwrap();
    folder
}

/// `serve` in a trial, each port a free one.
fn serve<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["serve", "--topology", "topology.yaml", "--data-dir", "data", "--dev"];
    for flag in ["--peer-addr", "--xds-addr", "--admin-addr", "--metrics-addr"] {
        if !more.contains(&flag) {
            arguments.extend([flag, "127.0.0.1:0"]);
        }
    }
    for (flag, value) in [("--cluster", "east-a"), ("--source", "files:m")] {
        if !more.contains(&flag) {
            arguments.extend([flag, value]);
        }
    }
    arguments.extend(more);
    arguments
}

#[track_caller]
fn fails(folder: &Path, arguments: &[&str], status: i32, message: &str) {
    let output = portolan(folder, arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {said}");
    assert!(said.contains(message), "{arguments:?}: {said}");
    assert!(!said.contains("panicked") && !said.contains("backtrace"), "{said}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{arguments:?}");
}

#[test]
fn wrong_usage_is_status_2_with_the_mend() {
    let folder = folder();
    let at = folder.path();
    for (more, message) in [
        (&["--source", "m"][..], "--source m: expected kube or files:DIR"),
        (
            &["--source", "files:m", "--watch-pods"],
            "--kubeconfig, --kube-context, --watch-pods and --watch-gateways are for --source kube; the first two for --publisher-lease",
        ),
        (
            &["--xds-addr", "0.0.0.0:0"],
            "--xds-addr 0.0.0.0:0: --dev takes loopback addresses alone, such as 127.0.0.1:0",
        ),
        (&["--tls-cert", "c.pem"], "--dev makes its own certificates"),
        (&["--xds-plaintext-addr", "127.0.0.1:0"], "--dev serves xDS in plain text at --xds-addr"),
        (&["--nodes", "portolan-0"], "`portolan-0`: expected NAME=HOST:PORT"),
        (&["--nodes", "portolan-7=a:1"], "--node portolan-0: it is not among --nodes"),
        (&["--nodes", "portolan-0=a:1,portolan-1=b:1"], "--nodes names several: add --publisher-lease"),
        (&["--cluster", "East"], "`East` is not a cluster name"),
    ] {
        fails(at, &serve(more), 2, message);
    }
    let without_dev: Vec<_> = serve(&[]).into_iter().filter(|flag| *flag != "--dev").collect();
    fails(at, &without_dev, 2, "--tls-cert, --tls-key and --tls-ca are needed");
    let with_files = [&without_dev[..], &["--tls-cert", "a", "--tls-key", "b", "--tls-ca", "c"]].concat();
    let half = [&with_files[..], &["--xds-plaintext-addr", "127.0.0.1:0"]].concat();
    fails(at, &half, 2, "--xds-plaintext-addr needs --xds-plaintext-from");
    let network = [&with_files[..], &["--xds-plaintext-addr", "127.0.0.1:0", "--xds-plaintext-from", "10/8"]].concat();
    fails(at, &network, 2, "`10/8` is not a network: expected ADDRESS/BITS");
    fails(at, &with_files, 1, "a: expected a certificate in PEM");
    fails(at, &["serve"], 2, "--topology <FILE>");
    fails(at, &["explain", "a.shop"], 2, "add --from ZONE");
    fails(at, &["drain", "us-east", "--reason", "x"], 2, "expected region=NAME, cluster=NAME or zone=NAME");
}

#[test]
fn what_cannot_start_is_status_1_with_the_place() {
    let folder = folder();
    let at = folder.path();
    fails(
        at,
        &serve(&["--cluster", "east-b"]),
        1,
        "it has no cluster `east-b`, which this control plane serves; expected `east-a`; did you mean `east-a`?",
    );
    fails(at, &serve(&["--source", "files:nowhere"]), 1, "--source files:nowhere: cannot read the folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    fails(at, &serve(&["--xds-addr", &address]), 1, &format!("cannot listen at {address} for xDS clients"));
    fails(at, &serve(&["--peer-addr", &address]), 1, &format!("cannot listen for peers at {address}"));
    // The data directory belongs to east-a by now.
    std::fs::write(at.join("topology.yaml"), TOPOLOGY.replace("east-a", "east-b")).unwrap();
    fails(
        at,
        &serve(&["--cluster", "east-b"]),
        1,
        "data: this data directory belongs to east-a/portolan-0, not to east-b/portolan-0",
    );
    std::fs::write(at.join("topology.yaml"), TOPOLOGY.replace("zones", "zoness")).unwrap();
    fails(at, &serve(&[]), 1, "topology.yaml:6:18: unknown field `zoness`");
    fails(at, &["topology", "check", "topology.yaml"], 1, "did you mean `zones`?");
    std::fs::remove_file(at.join("topology.yaml")).unwrap();
    fails(at, &serve(&[]), 1, "topology.yaml: cannot read the topology file");
    fails(at, &["status", "--address", "127.0.0.1:1"], 1, "no control plane answers at");
}

#[test]
fn a_control_plane_as_a_process() {
    let folder = folder();
    let at = folder.path();
    let mut process = Process(command(at, &serve(&[])).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let addresses: serde_json::Value =
        serde_json::from_slice(&std::fs::read(at.join("data/addresses.json")).unwrap()).unwrap();
    let of = |name: &str| addresses[name].as_str().unwrap();
    let said =
        format!("ready  xds {}  peers {}  admin {}  metrics {}\n", of("xds"), of("peers"), of("admin"), of("metrics"));
    assert_eq!(line, said);

    let admin = of("admin");
    let ask = |arguments: &[&str]| {
        let output = portolan(at, &[arguments, &["--address", admin]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(ask(&["status"]).contains("\neast-a *  east    fresh"), "{}", ask(&["status"]));
    assert_eq!(ask(&["services"]), "SERVICE  PORTS  READY  CLUSTERS  DEMAND  WATCHED\n");
    let status: serde_json::Value = serde_json::from_str(&ask(&["status", "-o", "json"])).unwrap();
    assert_eq!(status["cluster"], "east-a");
    assert!(
        ask(&["status", "-o", "yaml"]).contains("\ncluster: east-a\n")
            || ask(&["status", "-o", "yaml"]).starts_with("cluster: east-a")
    );
    assert!(ask(&["version"]).contains("control plane  0.1.0 (east-a/portolan-0)\n"));
    // A second one over the same data must not start.
    fails(at, &serve(&[]), 1, "another process uses this data directory");

    let pid = process.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(process.0.wait().unwrap().code(), Some(0));
    assert!(!at.join("data/addresses.json").exists());
    fails(at, &["status", "--address", admin], 1, "no control plane answers at");
}

/// Ends with the test, however that ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn what_needs_no_control_plane() {
    let folder = folder();
    let at = folder.path();
    let checked = portolan(at, &["topology", "check", "topology.yaml"]);
    assert_eq!(checked.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("e1/east-a"));
    // Its one voter is a majority in one region, and no region has a failover.
    let west = "  - {name: west, zones: [w1], clusters: [{name: west-a, controlPlane: {address: w.test}}]}\n";
    std::fs::write(at.join("topology.yaml"), format!("{TOPOLOGY}{west}")).unwrap();
    assert_eq!(portolan(at, &["topology", "check", "topology.yaml"]).status.code(), Some(0));
    assert_eq!(portolan(at, &["topology", "check", "--strict", "topology.yaml"]).status.code(), Some(1));
    let made = portolan(at, &["certs", "dev", "certs", "--topology", "topology.yaml"]);
    assert_eq!(made.status.code(), Some(0));
    for path in String::from_utf8(made.stdout).unwrap().lines() {
        assert!(at.join(path).is_file(), "{path}");
    }
    assert!(String::from_utf8(portolan(at, &["completion", "bash"]).stdout).unwrap().contains("complete -F _portolan"));
    assert_eq!(portolan(at, &["version", "--client"]).stdout, b"portolan       0.1.0\n");
    assert_eq!(portolan(at, &["--help"]).status.code(), Some(0));
}
