//! The program as people and its own runner start it: exit statuses, messages, and processes that never outlive their
//! runner.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_portolan-chaos");

fn chaos(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A child that is killed if the test fails on the way.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Kept {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Reads lines until one contains `text`.
    fn read_until(&mut self, text: &str) {
        let mut lines = BufReader::new(self.0.stdout.as_mut().unwrap()).lines();
        assert!(lines.any(|line| line.is_ok_and(|line| line.contains(text))), "it never said `{text}`");
    }
}

fn backend(address: SocketAddr) -> Kept {
    let mut command = Command::new(PROGRAM);
    let mut backend = Kept::start(command.args(["backend", "--name=b"]).arg(format!("--listen={address}")));
    backend.read_until("listening");
    backend
}

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn a_backend_ends_when_its_runner_does() {
    let address = free_address();
    let mut backend = backend(address);
    assert!(TcpStream::connect(address).is_ok());
    drop(backend.0.stdin.take());
    assert!(backend.0.wait().unwrap().success());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_backend_that_is_told_to_finish_does() {
    let mut backend = backend(free_address());
    backend.0.stdin.as_mut().unwrap().write_all(b"finish\n").unwrap();
    assert!(backend.0.wait().unwrap().success());
}

#[test]
fn a_backend_says_which_address_it_cannot_have() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut command = Command::new(PROGRAM);
    command.args(["backend", "--name=b", &format!("--listen={address}")]);
    // Its standard input stays open: it must end by itself.
    let mut refused = Kept(command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut message = String::new();
    refused.0.stderr.as_mut().unwrap().read_to_string(&mut message).unwrap();
    assert_eq!(refused.0.wait().unwrap().code(), Some(1));
    assert!(message.contains(&format!("cannot listen at {address}")), "{message}");
}

#[test]
fn another_build_is_killed_with_its_runner() {
    let mut supervised = Kept::start(Command::new(PROGRAM).args(["supervise", "sleep", "600"]));
    drop(supervised.0.stdin.take());
    assert_eq!(supervised.0.wait().unwrap().code(), Some(128 + 9), "as a shell says SIGKILL");
    let (status, _) = said(&chaos(&["supervise", "/no/such/program"]));
    assert_eq!(status, Some(1));
}

#[test]
fn the_program_is_portolan_too() {
    let output = chaos(&["portolan", "version", "--client"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_list_names_every_scenario_and_says_what_it_is_about() {
    let list = String::from_utf8(chaos(&["list"]).stdout).unwrap();
    for builtin in portolan_chaos::scenario::builtin::ALL {
        assert!(list.lines().any(|line| line.starts_with(builtin.name) && line.len() > builtin.name.len() + 20));
    }
}

#[test]
fn a_wrong_command_line_is_2_and_says_what_would_be_right() {
    let (status, message) = said(&chaos(&["run", "region-los"]));
    assert_eq!(status, Some(2));
    assert!(message.contains("did you mean `region-loss`?"), "{message}");
    assert_eq!(said(&chaos(&["run"])).0, Some(2));
    assert_eq!(said(&chaos(&["run", "zone-loss", "--rport", "x"])).0, Some(2));
}

#[test]
fn a_bad_scenario_is_1_and_shows_the_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("s.yaml");
    std::fs::write(&file, SCENARIO.replace("duration: 30s", "duratoin: 30s")).unwrap();
    std::fs::write(folder.path().join("topology.yaml"), TOPOLOGY).unwrap();
    let (status, message) = said(&chaos(&["run", file.to_str().unwrap()]));
    assert_eq!(status, Some(1));
    assert!(message.contains("s.yaml:11:3: unknown field `duratoin`"), "{message}");
    assert!(message.contains("did you mean `duration`?"), "{message}");
}

#[test]
fn a_missing_file_is_named() {
    for arguments in [["run", "/no/such.yaml"].as_slice(), &["run", "zone-loss", "--topology", "/no/such.yaml"]] {
        let (status, message) = said(&chaos(arguments));
        assert_eq!(status, Some(1));
        assert!(message.contains("cannot read /no/such.yaml"), "{message}");
    }
}

const TOPOLOGY: &str = "\
apiVersion: portolan.dev/v1alpha1
kind: Topology
metadata: {name: tiny}
spec:
  regions:
    - name: here
      zones: [here-a, here-b]
      clusters:
        - {name: only, controlPlane: {address: only.example.com, voter: true}}
";

/// Longer than the tests wait: they end it.
const SCENARIO: &str = "\
apiVersion: portolan.dev/v1alpha1
kind: Scenario
metadata: {name: tiny}
spec:
  topology: topology.yaml
  services: [{name: checkout.shop, port: 8080, backendsPerZone: 1}]
  clients: [{service: checkout.shop, rate: 50}]
  select: {lost: {zone: first}}
  steps:
    - {name: kill, at: 1s, kill: {scope: $lost, what: [backends]}}
  duration: 30s
  expect:
    - {name: failed, failed: {maxInFlightAtKill: true}}
";

/// A run of [`SCENARIO`] whose folder is in `temporary`.
fn tiny_run(scenario: &Path, temporary: &Path) -> Kept {
    let mut command = Command::new(PROGRAM);
    command.arg("run").arg(scenario).env("TMPDIR", temporary);
    Kept::start(command.current_dir(temporary))
}

fn folders(temporary: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(temporary).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("portolan-chaos-")).collect()
}

/// Every address that the run's processes listen at, from the files that it made.
fn addresses(folder: &Path) -> Vec<SocketAddr> {
    let bootstrap = std::fs::read(folder.join("bootstrap/only-here-a.json")).unwrap();
    let bootstrap: serde_json::Value = serde_json::from_slice(&bootstrap).unwrap();
    let control_plane = bootstrap["xds_servers"][0]["server_uri"].as_str().unwrap().parse().unwrap();
    let slices = std::fs::read_dir(folder.join("manifests/only")).unwrap().map(|entry| entry.unwrap().path());
    let backends = slices.map(|slice| std::fs::read_to_string(slice).unwrap()).filter_map(|text| {
        let after = |marker: &str| text.split(marker).nth(1)?.split_whitespace().next().map(str::to_owned);
        format!("{}:{}", after("- addresses:\n  - ")?, after("  port: ")?).parse().ok()
    });
    backends.chain([control_plane]).collect()
}

/// Waits until nobody accepts connections there.
fn wait_until_gone(address: SocketAddr) {
    // A connection that is held open ends when the process does; a process that is ending may still accept some.
    for _ in 0..1000 {
        let Ok(stream) = TcpStream::connect(address) else { return };
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let ended = std::io::copy(&mut &stream, &mut std::io::sink());
        assert!(!ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "{address} still answers");
    }
    panic!("{address} still answers");
}

#[test]
fn a_run_leaves_nothing_behind_however_it_ends() {
    let temporary = tempfile::tempdir().unwrap();
    let scenario = temporary.path().join("tiny.yaml");
    std::fs::write(&scenario, SCENARIO).unwrap();
    std::fs::write(temporary.path().join("topology.yaml"), TOPOLOGY).unwrap();

    // SIGKILL: the processes go by themselves, the folder with the next run.
    let mut killed = tiny_run(&scenario, temporary.path());
    killed.read_until("time 0");
    let [left] = &folders(temporary.path())[..] else { panic!("one run, one folder") };
    let listening = addresses(left);
    assert_eq!(listening.len(), 3, "two backends and a control plane");
    assert!(listening.iter().all(|address| TcpStream::connect(address).is_ok()));
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    listening.into_iter().for_each(wait_until_gone);

    // SIGTERM: everything goes at once.
    let mut ended = tiny_run(&scenario, temporary.path());
    ended.read_until("time 0");
    assert!(!left.exists(), "the next run removes what a killed one left");
    let [folder] = &folders(temporary.path())[..] else { panic!("one run, one folder") };
    let listening = addresses(folder);
    assert!(Command::new("kill").args(["-TERM", &ended.0.id().to_string()]).status().unwrap().success());
    assert_eq!(ended.0.wait().unwrap().code(), Some(1));
    assert_eq!(folders(temporary.path()), Vec::<PathBuf>::new());
    listening.into_iter().for_each(wait_until_gone);
}
