//! A network of the run's own. EndpointSlices refuse loopback addresses, so backends need others that reach nobody else:
//! inside of a network namespace all of 10.1.0.0/16 and fd00:1::/64 is local.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// The hidden subcommand that goes on inside.
pub(super) const INSIDE: &str = "kube-inside";

/// The addresses of Pods.
const SET_UP: &str = "ip link set lo up && ip route add local 10.1.0.0/16 dev lo && \
                      ip -6 route add local fd00:1::/64 dev lo && exec \"$0\" \"$@\"";

/// Becomes this program with `arguments` inside of a new network. Returns only why it cannot.
pub(super) fn enter(arguments: &[String]) -> anyhow::Error {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return anyhow::Error::new(error).context("cannot find this program"),
    };
    // Root may do so as it is; anybody else is root of a user namespace, where the kernel allows that.
    let ways = [&["--net"][..], &["--net", "--map-root-user"]];
    let works = |way: &&&[&str]| {
        let mut command = Command::new("unshare");
        command.args(**way).arg("true").stdin(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let Some(way) = ways.iter().find(works) else {
        return anyhow::anyhow!(
            "cannot make a network namespace: `unshare --net --map-root-user true` fails. The checks need one, since \
             EndpointSlices refuse loopback addresses. Run as root, or allow unprivileged user namespaces."
        );
    };
    let mut command = Command::new("unshare");
    command.args(*way).args(["sh", "-c", SET_UP]).arg(program).args(arguments);
    anyhow::Error::new(command.exec()).context("cannot run unshare")
}
