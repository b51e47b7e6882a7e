//! Why a call on the simulated cluster fails. Requests over HTTP never see these errors.

/// Why a call could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimError {
    /// The pod is deleted, or another one has its name.
    #[error("pod {0}/{1} does not exist")]
    NoPod(String, String),
    /// The pod has no container of that name.
    #[error("pod {pod} has no container {container}")]
    NoContainer {
        /// Name of the pod.
        pod: String,
        /// Name of the container.
        container: String,
    },
    /// The container does not run, and must for this call.
    #[error("container {container} of pod {pod} does not run")]
    NotRunning {
        /// Name of the pod.
        pod: String,
        /// Name of the container.
        container: String,
    },
    /// The container runs already.
    #[error("container {container} of pod {pod} runs already")]
    Running {
        /// Name of the pod.
        pod: String,
        /// Name of the container.
        container: String,
    },
    /// A pod of that name exists.
    #[error("pod {0}/{1} exists already")]
    Exists(String, String),
}
