//! Carries out the faults that `fault_plan` has planned, and ends them: signals to replicas, a lock on the store's
//! file, faults of the simulated API server. It shows each fault, and checks no result.
//!
//! If a replica is frozen while it writes, the store stays locked until the replica continues.

use std::collections::VecDeque;
use std::time::Duration;

use kube_sim::{Cut, Fault, Target, Verb};
use tokio::time::Instant;

use super::fault_plan::{DemoFault, PlannedFault};
use super::replica::ProcessState;
use super::running_demo::RunningDemo;
use super::store_lock::StoreLock;
use crate::exit::Failure;

/// How long a replica may take to end: its grace period of 20 s, and 5 s for a busy machine.
const STOP_TIMEOUT: Duration = Duration::from_secs(25);

/// The pause before the store's lock is tried again. A replica that is frozen while it writes keeps others from the lock
/// until it continues. Each attempt waits 4 s for the lock, so half of the time is left for everything else.
const LOCK_RETRY: Duration = Duration::from_secs(4);

/// How a fault ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Repair {
    /// Continue the frozen replica in this slot.
    Continue(usize),
    /// Start a replica in this slot, whose replica was killed or asked to stop at this time.
    Replace(usize, Duration),
    /// Unlock the store.
    UnlockStore,
    /// Let muted streams send again.
    Unmute(Verb),
}

/// The faults and repairs that are still to be carried out. Times are since the containers began to write.
#[derive(Debug)]
pub(super) struct Injector {
    planned: VecDeque<PlannedFault>,
    repairs: Vec<(Duration, Repair)>,
    /// How many faults have been carried out.
    done: u32,
    /// Failures of replicas that were asked to stop.
    failed_exits: Vec<String>,
}

impl Injector {
    /// An injector of these faults.
    pub(super) fn new(planned: Vec<PlannedFault>) -> Self {
        Self {
            planned: planned.into(),
            repairs: Vec::new(),
            done: 0,
            failed_exits: Vec::new(),
        }
    }

    /// How many faults were carried out, and the failures of replicas that were asked to stop.
    pub(super) fn outcome(self) -> (u32, Vec<String>) {
        (self.done, self.failed_exits)
    }

    /// Carries out the faults and repairs that are due at `now`.
    pub(super) async fn advance(&mut self, running: &mut RunningDemo, now: Duration) -> Result<(), Failure> {
        self.repair_due(running, now).await?;
        while let Some(planned) = self.planned.pop_front_if(|planned| planned.at <= now) {
            let begun = Instant::now();
            if self.inject(running, planned.fault, now).await? {
                self.done += 1;
            } else {
                let at = now + begun.elapsed() + LOCK_RETRY;
                // Among the others by its time, so that none of them waits for it.
                let index = self.planned.partition_point(|other| other.at <= at);
                self.planned.insert(index, PlannedFault { at, ..planned });
            }
        }
        Ok(())
    }

    /// Ends all faults at once, and waits until all replicas run.
    pub(super) async fn repair_all(
        &mut self,
        running: &mut RunningDemo,
        writing_since: Instant,
    ) -> Result<(), Failure> {
        running.environment.cluster.clear_faults();
        self.planned.clear();
        self.repairs.iter_mut().for_each(|(at, _)| *at = Duration::ZERO);
        self.repair_due(running, writing_since.elapsed()).await?;
        while !self.repairs.is_empty() {
            running.tick().await?;
            self.repair_due(running, writing_since.elapsed()).await?;
        }
        Ok(())
    }

    /// Carries out a fault. Returns false if it is not possible now and must be tried again.
    async fn inject(&mut self, running: &mut RunningDemo, fault: DemoFault, now: Duration) -> Result<bool, Failure> {
        if let DemoFault::Kill(slot, _) | DemoFault::Freeze(slot, _) | DemoFault::Terminate(slot, _) = fault {
            let replica = running.replicas.slot(slot);
            if replica.state() != ProcessState::Running {
                let event = format!("{} gets no fault now, because it has not ended yet", replica.name());
                running.observer.show_event(event);
                return Ok(true);
            }
        }
        match fault {
            DemoFault::Kill(slot, vacant) => {
                let killed = running.kill(slot).await;
                running.ignore_while_locked(killed)?;
                self.repairs.push((now + vacant, Repair::Replace(slot, now)));
            }
            DemoFault::Freeze(slot, time) => {
                let replica = running.replicas.slot(slot);
                replica.freeze();
                let event = format!(
                    "{} is frozen with SIGSTOP for {:.1} s",
                    replica.name(),
                    time.as_secs_f64()
                );
                running.observer.show_event(event);
                self.repairs.push((now + time, Repair::Continue(slot)));
            }
            DemoFault::Terminate(slot, vacant) => {
                let replica = running.replicas.slot(slot);
                replica.terminate();
                let event = format!("{} is asked to stop with SIGTERM", replica.name());
                running.observer.show_event(event);
                self.repairs.push((now + vacant, Repair::Replace(slot, now)));
            }
            DemoFault::LockStore(time) => return Ok(self.lock_store(running, time, now).await),
            DemoFault::Cut(verb, how) => {
                let count = running.environment.cluster.cut(&Target::verb(verb), how);
                let how = match how {
                    Cut::Clean => "end as if complete",
                    Cut::Reset => "are cut by a reset",
                };
                running
                    .observer
                    .show_event(format!("{count} open {} {how}", plural(verb)));
            }
            DemoFault::Mute(verb, time) => {
                let count = running.environment.cluster.mute(&Target::verb(verb));
                let (streams, seconds) = (plural(verb), time.as_secs_f64());
                running
                    .observer
                    .show_event(format!("{count} open {streams} send nothing for {seconds:.1} s"));
                self.repairs.push((now + time, Repair::Unmute(verb)));
            }
            DemoFault::Refuse(verb, status, times) => refuse(running, verb, status, times),
        }
        Ok(true)
    }

    /// Locks the store's file. Returns false if it was not possible.
    async fn lock_store(&mut self, running: &mut RunningDemo, time: Duration, now: Duration) -> bool {
        match StoreLock::take(&running.environment.store_file()).await {
            Ok(lock) => {
                running.store_lock = Some(lock);
                let seconds = time.as_secs_f64();
                running
                    .observer
                    .show_event(format!("the store's file is locked for {seconds:.1} s"));
                self.repairs.push((now + time, Repair::UnlockStore));
                true
            }
            Err(why) => {
                running
                    .observer
                    .show_event(format!("the store's file could not be locked: {why}"));
                false
            }
        }
    }

    async fn repair_due(&mut self, running: &mut RunningDemo, now: Duration) -> Result<(), Failure> {
        let due: Vec<_> = self.repairs.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, repair) in due {
            match repair {
                Repair::Continue(slot) => {
                    let replica = running.replicas.slot(slot);
                    replica.resume();
                    let event = format!("{} continues", replica.name());
                    running.observer.show_event(event);
                }
                Repair::Replace(slot, since) => self.replace(running, slot, since, now).await?,
                Repair::UnlockStore => {
                    if let Some(lock) = running.store_lock.take() {
                        lock.release().await;
                    }
                    running.observer.show_event("the store's file is free again");
                }
                Repair::Unmute(verb) => {
                    running.environment.cluster.unmute(&Target::verb(verb));
                    running.observer.show_event(format!("muted {} continue", plural(verb)));
                }
            }
        }
        Ok(())
    }

    /// Starts a replica in place of one that was killed or asked to stop at `since`. If that replica has not ended,
    /// tries again later.
    async fn replace(
        &mut self,
        running: &mut RunningDemo,
        slot: usize,
        since: Duration,
        now: Duration,
    ) -> Result<(), Failure> {
        let replica = running.replicas.slot(slot);
        let name = replica.name().to_owned();
        if replica.state() == ProcessState::Ending {
            let failure = match replica.has_ended()? {
                Some(ended) => ended.err(),
                None if now < since + STOP_TIMEOUT => {
                    self.repairs.push((now, Repair::Replace(slot, since)));
                    return Ok(());
                }
                None => {
                    replica.kill().await;
                    Some(format!(
                        "{name} did not end within {STOP_TIMEOUT:?} of SIGTERM and was killed"
                    ))
                }
            };
            if let Some(failure) = failure {
                running.observer.show_event(&failure);
                self.failed_exits.push(failure);
            }
        }
        let replica = running.replicas.replace(slot, &running.environment.dir)?;
        running
            .observer
            .show_event(format!("{} started in place of {name}", replica.name()));
        Ok(())
    }
}

fn refuse(running: &mut RunningDemo, verb: Verb, status: u16, times: u32) {
    let retry_after = (status == 429).then_some(1);
    let fault = Fault::Refuse { status, retry_after };
    running.environment.cluster.inject(Target::verb(verb), fault, times);
    let what = plural(verb);
    running.observer.show_event(format!(
        "the next {times} requests for {what} are refused with {status}"
    ));
}

/// What requests of this verb ask for.
fn plural(verb: Verb) -> &'static str {
    match verb {
        Verb::List => "lists of pods",
        Verb::Watch => "watches",
        Verb::Get => "pods",
        Verb::Log => "log streams",
        Verb::Other => "anything else",
    }
}
