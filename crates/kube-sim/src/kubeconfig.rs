//! A kubeconfig for a simulated API server. It contains no credentials, because the server needs none.

use std::fmt;

/// The text of a kubeconfig for the server at `address`, such as `127.0.0.1:6443`.
#[must_use]
pub fn kubeconfig(address: impl fmt::Display) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: sim\n\
         clusters:\n- name: sim\n  cluster:\n    server: http://{address}\n\
         users:\n- name: sim\n  user: {{}}\n\
         contexts:\n- name: sim\n  context:\n    cluster: sim\n    user: sim\n"
    )
}
