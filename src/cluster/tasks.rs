//! The tasks that drive connections, owned by the pool that opened them.
//!
//! hyper needs an executor for the futures of its connections. They are kept in a `JoinSet`, so that they end with their
//! owner. Finished tasks are removed whenever another is added. Nothing here restarts a task or waits for one.

use std::future::Future;
use std::sync::{Arc, Mutex, Weak};

use tokio::task::JoinSet;

use crate::sync::lock;

/// The owner of the tasks. When its last clone is dropped, every task ends.
#[derive(Clone, Debug, Default)]
pub(super) struct DriverTasks(Arc<Mutex<JoinSet<()>>>);

impl DriverTasks {
    /// Spawns `task`.
    pub(super) fn run(&self, task: impl Future<Output = ()> + Send + 'static) {
        add(&self.0, task);
    }

    /// An executor for hyper. The tasks themselves hold it, so it must not keep their owner alive.
    pub(super) fn executor(&self) -> Executor {
        Executor(Arc::downgrade(&self.0))
    }
}

/// Spawns tasks while their owner exists; afterwards it drops them.
#[derive(Clone, Debug)]
pub(super) struct Executor(Weak<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, task: F) {
        if let Some(owner) = self.0.upgrade() {
            add(&owner, task);
        }
    }
}

fn add(owner: &Mutex<JoinSet<()>>, task: impl Future<Output = ()> + Send + 'static) {
    let mut tasks = lock(owner);
    while let Some(ended) = tasks.try_join_next() {
        if let Err(error) = ended
            && error.is_panic()
        {
            tracing::error!(%error, "a connection to the API server ended by a panic; its streams are reopened");
        }
    }
    tasks.spawn(task);
}

#[cfg(test)]
mod tests {
    use hyper::rt::Executor as _;

    use super::*;

    #[tokio::test]
    async fn tasks_end_with_their_owner_even_if_they_hold_the_executor() {
        let tasks = DriverTasks::default();
        let executor = tasks.executor();
        let (held, mut released) = tokio::sync::mpsc::channel::<()>(1);
        let inner = executor.clone();
        executor.execute(async move {
            let _kept = (inner, held);
            std::future::pending::<()>().await;
        });
        tokio::task::yield_now().await;
        drop(tasks);
        assert_eq!(released.recv().await, None);
        executor.execute(async { panic!("nobody runs this") });
    }

    #[tokio::test]
    async fn finished_tasks_are_removed_when_another_is_added() {
        let tasks = DriverTasks::default();
        for _ in 0..100 {
            tasks.run(async {});
            tokio::task::yield_now().await;
        }
        assert!(tasks.0.lock().unwrap().len() <= 2);
    }
}
