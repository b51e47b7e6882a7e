//! How to reach the cluster and with which credentials: a kubeconfig, or the service account of a pod.
//!
//! Reading it sends nothing to the API server and runs no exec plugin; the clients that are built from it do.

use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use kube::config::{Config, KubeConfigOptions, Kubeconfig, KubeconfigError};

use super::error::AccessError;
use super::text::error_chain;

/// The longest time for reading the files. They are small, so one that takes longer is on a file system that hangs.
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// How to reach the cluster.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The kubeconfig. Without it: `KUBECONFIG`, then `~/.kube/config`, then the service account of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig. Without it: its current context.
    pub context: Option<String>,
}

/// The configuration as it was read at one moment.
#[derive(Debug)]
pub(super) struct Configuration {
    pub(super) config: Config,
    /// The context of the kubeconfig; `None` in a pod.
    pub(super) context: Option<String>,
    /// Changes when the configuration or the content of a file that it names changes.
    pub(super) fingerprint: u64,
    /// Whether `HTTPS_PROXY` names a proxy, which is not used.
    pub(super) ignores_proxy: bool,
}

impl Configuration {
    fn new(config: Config, context: Option<String>, ignores_proxy: bool) -> Self {
        Self {
            fingerprint: fingerprint(&config),
            config,
            context,
            ignores_proxy,
        }
    }
}

/// Of everything that the clients read only once. A file with a token is read again by kube.
fn fingerprint(config: &Config) -> u64 {
    let mut hash = DefaultHasher::new();
    config.cluster_url.to_string().hash(&mut hash);
    config.tls_server_name.hash(&mut hash);
    config.accept_invalid_certs.hash(&mut hash);
    config.root_cert.hash(&mut hash);
    let auth = &config.auth_info;
    // Only its JSON exposes all of it.
    serde_json::to_string(auth).unwrap_or_default().hash(&mut hash);
    for file in [&auth.client_certificate, &auth.client_key].into_iter().flatten() {
        std::fs::read(file).ok().hash(&mut hash);
    }
    hash.finish()
}

/// Refuses a proxy that the kubeconfig sets. A proxy from `HTTPS_PROXY` is ignored: kube does not read `NO_PROXY` here,
/// and API servers are seldom reached through a proxy. Returns whether one is ignored.
fn without_proxy(mut config: Config, own: &[String]) -> Result<(Config, bool), AccessError> {
    let Some(proxy) = config.proxy_url.take() else {
        return Ok((config, false));
    };
    let asked = own
        .iter()
        .any(|url| url.parse().is_ok_and(|url: http::Uri| url == proxy));
    if asked {
        // Without the user and password that a proxy's address may carry.
        return Err(AccessError::Proxy(proxy.host().unwrap_or("?").to_owned()));
    }
    Ok((config, true))
}

/// What is wrong with a kubeconfig. The text of the YAML library quotes lines, which may hold a token; it is not repeated.
fn cause(error: &KubeconfigError) -> String {
    // Its own text names the file again.
    if let KubeconfigError::ReadConfig(error, _) = error {
        return error.to_string();
    }
    let text = error_chain(error);
    if !matches!(error, KubeconfigError::Parse(_)) {
        return text;
    }
    let number = |after: &str| {
        let (_, rest) = text.split_once(after)?;
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        rest[..end].parse::<u32>().ok()
    };
    let place = number("line ").zip(number("column "));
    let place = place.map_or_else(String::new, |(line, column)| {
        format!(", at line {line} column {column}")
    });
    format!("it is not valid YAML, or not a kubeconfig{place}")
}

/// The paths of a list such as `KUBECONFIG`.
fn paths(list: &OsStr) -> Vec<PathBuf> {
    let paths = std::env::split_paths(list);
    paths.filter(|path| !path.as_os_str().is_empty()).collect()
}

/// The kubeconfigs of a list in one. A missing file is passed over, as kubectl does, unless all are missing.
fn merged(paths: &[PathBuf]) -> Result<Kubeconfig, KubeconfigError> {
    let (mut merged, mut missing) = (None::<Kubeconfig>, Vec::new());
    for path in paths {
        match Kubeconfig::read_from(path) {
            Ok(read) => {
                merged = Some(match merged {
                    Some(before) => before.merge(read)?,
                    None => read,
                });
            }
            Err(KubeconfigError::ReadConfig(error, path)) if error.kind() == ErrorKind::NotFound => {
                missing.push((error, path));
            }
            Err(error) => return Err(error),
        }
    }
    match (merged, missing.pop()) {
        (Some(merged), _) => Ok(merged),
        (None, Some((error, _))) => {
            let all = std::env::join_paths(paths).unwrap_or_default();
            Err(KubeconfigError::ReadConfig(error, all.into()))
        }
        (None, None) => Err(KubeconfigError::FindPath),
    }
}

impl Access {
    /// Reads the configuration, within [`READ_DEADLINE`].
    pub(super) async fn read(&self) -> Result<Configuration, AccessError> {
        let (access, runtime) = (self.clone(), tokio::runtime::Handle::current());
        // kube reads the files in a way that blocks.
        let reading = tokio::task::spawn_blocking(move || runtime.block_on(access.configuration()));
        match tokio::time::timeout(READ_DEADLINE, reading).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => Err(AccessError::NoCluster(error.to_string())),
            Err(_) => Err(AccessError::NoCluster(format!(
                "the kubeconfig and its files could not be read within {} s",
                READ_DEADLINE.as_secs()
            ))),
        }
    }

    async fn configuration(&self) -> Result<Configuration, AccessError> {
        match &self.kubeconfig {
            Some(path) => {
                let file = path.display().to_string();
                let read = Kubeconfig::read_from(path).map_err(|error| AccessError::Kubeconfig {
                    file: file.clone(),
                    cause: cause(&error),
                })?;
                self.config_from(read, &file).await
            }
            None => self.inferred().await,
        }
    }

    async fn inferred(&self) -> Result<Configuration, AccessError> {
        let found = "from KUBECONFIG or ~/.kube/config";
        let listed: Vec<PathBuf> = std::env::var_os("KUBECONFIG").map_or_else(Vec::new, |list| paths(&list));
        let read = if listed.is_empty() {
            Kubeconfig::read()
        } else {
            merged(&listed)
        };
        match read {
            Ok(read) => self.config_from(read, found).await,
            Err(KubeconfigError::ReadConfig(error, path))
                if error.kind() != ErrorKind::NotFound || !listed.is_empty() =>
            {
                Err(AccessError::Kubeconfig {
                    file: path.display().to_string(),
                    cause: error.to_string(),
                })
            }
            Err(KubeconfigError::ReadConfig(..) | KubeconfigError::FindPath) => {
                if let Some(context) = &self.context {
                    return Err(AccessError::NoCluster(format!(
                        "no kubeconfig to find context {context:?} in"
                    )));
                }
                let config = Config::incluster().map_err(|_| {
                    AccessError::NoCluster("no kubeconfig (KUBECONFIG, ~/.kube/config) and not in a pod".into())
                })?;
                Ok(Configuration::new(config, None, false))
            }
            Err(error) => Err(AccessError::Kubeconfig {
                file: found.into(),
                cause: cause(&error),
            }),
        }
    }

    async fn config_from(&self, read: Kubeconfig, file: &str) -> Result<Configuration, AccessError> {
        if let Some(context) = &self.context
            && !read.contexts.iter().any(|known| known.name == *context)
        {
            let known: Vec<&str> = read.contexts.iter().map(|known| known.name.as_str()).collect();
            return Err(AccessError::NoContext {
                file: file.to_owned(),
                context: context.clone(),
                known: known.join(", "),
            });
        }
        let context = self.context.clone().or_else(|| read.current_context.clone());
        let options = KubeConfigOptions {
            context: context.clone(),
            ..KubeConfigOptions::default()
        };
        let clusters = read.clusters.iter().filter_map(|named| named.cluster.as_ref());
        let own: Vec<String> = clusters.filter_map(|cluster| cluster.proxy_url.clone()).collect();
        let config = Config::from_custom_kubeconfig(read, &options).await;
        let config = config.map_err(|error| AccessError::Kubeconfig {
            file: file.to_owned(),
            cause: cause(&error),
        })?;
        let (config, ignores_proxy) = without_proxy(config, &own)?;
        Ok(Configuration::new(config, context, ignores_proxy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &str, context: Option<&str>) -> Result<Config, AccessError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, text).unwrap();
        let access = Access {
            kubeconfig: Some(path),
            context: context.map(str::to_owned),
        };
        Ok(access.read().await?.config)
    }

    const GOOD: &str = r#"{"current-context": "a",
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}, {"name": "p", "context": {"cluster": "p", "user": "a"}}],
        "clusters": [{"name": "a", "cluster": {"server": "https://k8s:6443"}},
            {"name": "p", "cluster": {"server": "https://k8s:6443", "proxy-url": "http://me:secret@proxy:3128"}}],
        "users": [{"name": "a", "user": {"token": "t"}}]}"#;

    #[tokio::test]
    async fn a_kubeconfig_is_read_and_a_missing_context_is_refused_with_those_it_has() {
        assert_eq!(read(GOOD, None).await.unwrap().cluster_url, "https://k8s:6443/");
        let text = read(GOOD, Some("b")).await.unwrap_err().to_string();
        assert!(text.contains(r#"has no context "b" (it has: a, p)"#), "{text}");
    }

    #[tokio::test]
    async fn a_proxy_in_the_kubeconfig_is_refused_without_its_password() {
        let text = read(GOOD, Some("p")).await.unwrap_err().to_string();
        assert!(
            text.contains("sets the proxy proxy (") && !text.contains("secret"),
            "{text}"
        );
    }

    #[tokio::test]
    async fn a_file_that_is_missing_or_broken_is_named() {
        let text = read("clusters: 7", None).await.unwrap_err().to_string();
        assert!(text.starts_with("kubeconfig /") && !text.contains('\n'), "{text}");
        let access = Access {
            kubeconfig: Some("/nowhere/config".into()),
            ..Access::default()
        };
        let text = access.read().await.unwrap_err().to_string();
        assert!(
            text.starts_with("kubeconfig /nowhere/config: No such file") && text.matches("/nowhere").count() == 1,
            "{text}"
        );
        // A directory in place of the file.
        let folder = tempfile::tempdir().unwrap();
        let access = Access {
            kubeconfig: Some(folder.path().to_owned()),
            ..Access::default()
        };
        let text = access.read().await.unwrap_err().to_string();
        let name = folder.path().display().to_string();
        assert_eq!(text.matches(&name).count(), 1, "{text}");
    }

    #[test]
    fn a_missing_file_of_a_list_is_passed_over_unless_all_are_missing() {
        let folder = tempfile::tempdir().unwrap();
        let there = folder.path().join("config");
        std::fs::write(&there, GOOD).unwrap();
        let list = |text: &str| paths(OsStr::new(text));
        for text in [
            format!("/nowhere:{}", there.display()),
            format!("{}::/nowhere:", there.display()),
        ] {
            let read = merged(&list(&text)).unwrap();
            assert_eq!(read.current_context.as_deref(), Some("a"), "{text}");
        }
        let Err(KubeconfigError::ReadConfig(_, path)) = merged(&list("/nowhere:/no/where")) else {
            panic!("all are missing")
        };
        assert_eq!(path, PathBuf::from("/nowhere:/no/where"));
        std::fs::write(&there, "clusters: 7").unwrap();
        assert!(
            merged(&list(&format!("/nowhere:{}", there.display()))).is_err(),
            "a broken file is not passed over"
        );
    }
}
