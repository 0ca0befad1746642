//! A real API server as a child process: started, killed, started again on its directory and port.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::runner::process::{Launch, Process};

/// A loaded machine is slow to start it.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A running API server. It ends with this value, and with the runner.
#[derive(Debug)]
pub(super) struct ApiServer {
    program: PathBuf,
    folder: PathBuf,
    flags: Vec<String>,
    at: At,
    /// `None` while it is down.
    process: Option<Process>,
}

/// Where it is, as it says itself.
#[derive(Debug, Clone)]
struct At {
    kubeconfig: PathBuf,
    server: SocketAddr,
    admin: SocketAddr,
}

impl ApiServer {
    /// Starts one on a folder of its own.
    pub(super) async fn start(program: &Path, folder: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        let (process, at) = launch(program, folder, 0, &flags).await?;
        Ok(Self { program: program.to_owned(), folder: folder.to_owned(), flags, at, process: Some(process) })
    }

    /// Sends SIGKILL and waits for the end.
    pub(super) async fn kill(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("the API server is down already")?;
        let killed = process.kill();
        process.gone(killed).await.context("cannot wait for the API server's end")?;
        Ok(())
    }

    /// Starts it again on its directory and port after [`ApiServer::kill`].
    pub(super) async fn start_again(&mut self) -> anyhow::Result<()> {
        let (process, at) = launch(&self.program, &self.folder, self.at.server.port(), &self.flags).await?;
        (self.process, self.at) = (Some(process), at);
        Ok(())
    }

    /// SIGKILL, and start.
    pub(super) async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill().await?;
        self.start_again().await
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.at.server
    }

    /// The admin's kubeconfig.
    pub(super) fn kubeconfig(&self) -> &Path {
        &self.at.kubeconfig
    }

    /// A kubeconfig by which the admin acts as `user`, whom RBAC allows nothing to begin with. `server` may be a proxy's
    /// address in front of it.
    pub(super) fn kubeconfig_of(&self, user: Option<&str>, server: SocketAddr) -> anyhow::Result<PathBuf> {
        let mut config = Kubeconfig::read_from(self.kubeconfig()).context("cannot read the kubeconfig")?;
        for cluster in config.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            cluster.server = Some(format!("https://{server}"));
        }
        for auth in config.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()) {
            auth.impersonate = user.map(str::to_owned);
        }
        let file = self.folder.join(format!("kubeconfig-{}-{}", user.unwrap_or("admin"), server.port()));
        // JSON is YAML.
        std::fs::write(&file, serde_json::to_vec(&config)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }

    /// A client for the admin.
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        client_of(self.kubeconfig()).await
    }

    /// A client for `user`, whom RBAC allows nothing to begin with.
    pub(super) async fn client_as(&self, user: &str) -> anyhow::Result<Client> {
        client_of(&self.kubeconfig_of(Some(user), self.address())?).await
    }

    /// Makes etcd forget every revision but the last.
    pub(super) async fn compact(&self) -> anyhow::Result<()> {
        let status = crate::sockets::http_status(self.at.admin, "POST", "/compact").await?;
        if status == 200 { Ok(()) } else { Err(anyhow!("compaction answered {status}")) }
    }
}

/// A client by a kubeconfig.
pub(super) async fn client_of(kubeconfig: &Path) -> anyhow::Result<Client> {
    let config = Kubeconfig::read_from(kubeconfig).context("cannot read the kubeconfig")?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

async fn launch(program: &Path, folder: &Path, port: u16, flags: &[String]) -> anyhow::Result<(Process, At)> {
    let mut arguments = vec![
        format!("-dir={}", folder.join("state").display()),
        format!("-port={port}"),
        "-exit-on-stdin-eof".to_owned(),
        "--".to_owned(),
    ];
    arguments.extend(flags.iter().cloned());
    let launch = Launch {
        name: format!("API server {}", folder.file_name().unwrap_or_default().display()),
        program: program.to_owned(),
        arguments,
        environment: Vec::new(),
        log: folder.join("apiserver.log"),
        killed_by_pipe: false,
    };
    let (process, line) = launch.start_until(|line| line.starts_with("READY "), READY_WITHIN).await?;
    let at = At::parse(&line).with_context(|| format!("the API server printed `{line}`"))?;
    Ok((process, at))
}

impl At {
    /// Reads `READY kubeconfig=FILE server=URL admin=URL`.
    fn parse(line: &str) -> Option<Self> {
        let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let address = |url: &str| url.split_once("://")?.1.parse().ok();
        Some(Self {
            kubeconfig: field("kubeconfig")?.into(),
            server: address(field("server")?)?,
            admin: address(field("admin")?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_line_says_where_the_server_is() {
        let at =
            At::parse("READY kubeconfig=/x/kubeconfig server=https://127.0.0.1:1 admin=http://127.0.0.1:2").unwrap();
        assert_eq!((at.kubeconfig.as_path(), at.server.port(), at.admin.port()), (Path::new("/x/kubeconfig"), 1, 2));
        for wrong in ["READY", "READY kubeconfig=/x server=https://localhost:1 admin=http://127.0.0.1:2"] {
            assert!(At::parse(wrong).is_none(), "{wrong}");
        }
    }
}
