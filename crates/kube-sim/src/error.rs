//! Why a call of a test on the simulated cluster fails. HTTP requests never get these errors.

/// Why a call could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SimError {
    /// The pod does not exist any more, or another pod has its name now.
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
    /// The container does not run, but this call needs it to run.
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
