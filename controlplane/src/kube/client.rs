//! The one place that makes a Kubernetes client: from a kubeconfig and one of its contexts, or from what a pod is given.
//!
//! The client dials by itself: the API server is outside the federation, and its sockets do not come from a `Net`. Tests
//! hand in a [`kube::Client`] over whatever they like.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

/// How long the API server's port may take to answer. A longer silence is an unreachable server, not a slow one.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Who we say that we are.
const USER: &str = concat!("portolan/", env!("CARGO_PKG_VERSION"));

/// Which API server is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// A kubeconfig file. `None`: the one that `KUBECONFIG` or the home directory names, if there is one; else the
    /// service account of the pod that we are in.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; `None`: its current one.
    pub context: Option<String>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A kubeconfig was named, and cannot be used.
    #[error("{}: {source}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<KubeconfigError>,
    },
    /// A context was named, and the kubeconfig has no such.
    #[error("{kubeconfig}: there is no context `{context}`; expected {known}")]
    UnknownContext {
        /// The file, or which would have been read.
        kubeconfig: String,
        /// The context.
        context: String,
        /// Those that there are.
        known: String,
    },
    /// A context was named, and cannot be used.
    #[error("the context `{context}` cannot be used: {source}")]
    Context {
        /// The context.
        context: String,
        /// What is wrong.
        source: Box<KubeconfigError>,
    },
    /// Nothing was named, and neither a kubeconfig nor a pod's service account is there.
    #[error(
        "no Kubernetes API server is known: no kubeconfig can be used ({kubeconfig}), and this is no pod with a service \
         account ({in_cluster}); name a file with --kubeconfig"
    )]
    Nowhere {
        /// What the kubeconfig lacks.
        kubeconfig: Box<KubeconfigError>,
        /// What a pod would have.
        in_cluster: Box<InClusterError>,
    },
    /// What the configuration says cannot be used.
    #[error("the Kubernetes client cannot be made: {0}")]
    Unusable(#[from] Box<kube::Error>),
}

/// Makes the client. Nothing is asked of the API server: it may be away, and come.
pub async fn connect(access: &Access) -> Result<Client, ClientError> {
    let mut config = configuration(access).await?;
    config.connect_timeout = Some(CONNECT_LIMIT);
    config.headers.push((USER_AGENT, HeaderValue::from_static(USER)));
    Client::try_from(config).map_err(|error| ClientError::Unusable(Box::new(error)))
}

async fn configuration(access: &Access) -> Result<Config, ClientError> {
    let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    let file = match &access.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    if let (Ok(file), Some(context)) = (&file, &access.context) {
        has(file, context, access)?;
    }
    let config = match file {
        Ok(file) => Config::from_custom_kubeconfig(file, &options).await,
        Err(error) => Err(error),
    };
    match (config, &access.kubeconfig, &access.context) {
        (Ok(config), ..) => Ok(config),
        (Err(source), Some(path), _) => Err(ClientError::Kubeconfig { path: path.clone(), source: Box::new(source) }),
        // A pod has no contexts: who names one does not mean its service account.
        (Err(source), None, Some(context)) => {
            Err(ClientError::Context { context: context.clone(), source: Box::new(source) })
        }
        (Err(kubeconfig), None, None) => Config::incluster().map_err(|in_cluster| ClientError::Nowhere {
            kubeconfig: Box::new(kubeconfig),
            in_cluster: Box::new(in_cluster),
        }),
    }
}

/// Whether the kubeconfig has the context; if not, which it has.
fn has(file: &Kubeconfig, context: &str, access: &Access) -> Result<(), ClientError> {
    let names: Vec<&str> = file.contexts.iter().map(|known| known.name.as_str()).collect();
    if names.contains(&context) {
        return Ok(());
    }
    let known = if names.is_empty() { "one of its own, and it has none".to_owned() } else { names.join(", ") };
    let path = access.kubeconfig.as_ref().map(|path| path.display().to_string());
    let kubeconfig = path.unwrap_or_else(|| "the kubeconfig".to_owned());
    Err(ClientError::UnknownContext { kubeconfig, context: context.to_owned(), known })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: one
clusters:
  - {name: one, cluster: {server: 'http://127.0.0.1:1'}}
  - {name: two, cluster: {server: 'http://127.0.0.1:2'}}
users: [{name: ada, user: {token: t}}]
contexts:
  - {name: one, context: {cluster: one, user: ada}}
  - {name: two, context: {cluster: two, user: ada, namespace: portolan-system}}
";

    fn access(folder: &tempfile::TempDir, text: &str, context: Option<&str>) -> Access {
        let path = folder.path().join("config");
        std::fs::write(&path, text).unwrap();
        Access { kubeconfig: Some(path), context: context.map(str::to_owned) }
    }

    #[tokio::test]
    async fn a_context_of_a_file_says_where_and_in_which_namespace() {
        let folder = tempfile::tempdir().unwrap();
        let one = configuration(&access(&folder, KUBECONFIG, None)).await.unwrap();
        assert_eq!((one.cluster_url.port_u16(), one.default_namespace.as_str()), (Some(1), "default"));
        let two = configuration(&access(&folder, KUBECONFIG, Some("two"))).await.unwrap();
        assert_eq!((two.cluster_url.port_u16(), two.default_namespace.as_str()), (Some(2), "portolan-system"));
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_told_with_the_file_and_the_name() {
        let folder = tempfile::tempdir().unwrap();
        for (text, context, part) in [
            (KUBECONFIG, Some("three"), ": there is no context `three`; expected one, two"),
            (
                "apiVersion: v1\nkind: Config\n",
                Some("one"),
                "no context `one`; expected one of its own, and it has none",
            ),
            ("kind: [", None, "YAML"),
            ("apiVersion: v1\nkind: Config\n", None, "current context"),
        ] {
            let access = access(&folder, text, context);
            let error = connect(&access).await.err().unwrap().to_string();
            let file = access.kubeconfig.unwrap().display().to_string();
            assert!(error.starts_with(&file) && error.contains(part), "{error}");
        }
    }
}
