//! Carries out the actions of a history on a fleet.
//!
//! It skips actions that are impossible, and actions whose effect podlog cannot detect. Each such condition says why.

use std::time::Duration;

use tokio::time::Instant;

use super::fleet::{CONTAINERS, Fleet};
use super::guards;
use super::history::{Action, ApiFault, SinkFault, StoreFault};
use super::lease::LEASE;
use super::rule::Breach;
use super::sink::SinkFaults;
use super::store::StoreFaults;
use crate::domain::LockKey;
use kube_sim::{Cut, Fault, PodSpec, RestartPolicy, SimCluster, SimPod, Target, Verb};

/// The most replicas at a time.
const REPLICAS: usize = 5;

/// The most pods at a time.
const PODS: usize = 15;

/// How many seconds to wait until a replica requests a pod from another. The set of replicas must be unchanged for one
/// ttl before that.
const HANDOVER_TIMEOUT_SECONDS: u32 = 26;

/// How long a status is delayed. A reader gets the pod of a log twice within half a second, so it cannot notice a
/// longer delay.
const STATUS_DELAY: Duration = Duration::from_millis(300);

/// How long the sink takes for a write during which a replica is asked to stop. Twice the longest time until a line is
/// written.
const SLOW_WRITE: Duration = Duration::from_millis(800);

/// After this time a stream that has ended is read again.
const BEFORE_NEXT_READ: Duration = Duration::from_secs(2);

/// A fleet and the pods that were created in it.
pub(super) struct ActionRunner {
    pub(super) fleet: Fleet,
    fencing: bool,
    pods: Vec<CreatedPod>,
    pods_created: usize,
    /// Whether log streams have been muted since they were last cut.
    log_streams_muted: bool,
    /// When log streams were last ended without an error.
    log_streams_ended_at: Option<Instant>,
    /// When the store's clock last jumped.
    clock_jumped_at: Option<Instant>,
}

/// A pod of the fleet.
#[derive(Clone)]
struct CreatedPod {
    pod: SimPod,
    containers: &'static [&'static str],
    /// Whether its containers are never restarted.
    never_restarts: bool,
}

/// The index that a number of a history stands for; `None` if `count` is 0.
fn choose_index(number: u32, count: usize) -> Option<usize> {
    (number as usize).checked_rem(count)
}

impl ActionRunner {
    pub(super) fn new(fleet: Fleet, fencing: bool) -> Self {
        Self {
            fleet,
            fencing,
            pods: Vec::new(),
            pods_created: 0,
            log_streams_muted: false,
            log_streams_ended_at: None,
            clock_jumped_at: None,
        }
    }

    /// Carries out an action, if it is possible.
    pub(super) fn run(&mut self, action: &Action) -> Option<Breach> {
        match action {
            Action::Nothing => {}
            Action::Create(never_restarts) => self.create(*never_restarts),
            Action::Write(pod, _)
            | Action::WriteHalfLine(pod)
            | Action::Rotate(pod)
            | Action::RotateWithinLine(pod)
            | Action::Exit(pod, _)
            | Action::Restart(pod)
            | Action::Terminate(pod)
            | Action::Remove(pod)
            | Action::RemoveAfterRestart(pod)
            | Action::Recreate(pod) => {
                let (pod, count) = (*pod as usize, self.pods.len());
                let at = pod.checked_rem(count)?;
                let containers = self.pods[at].containers;
                self.run_on_pod(action, at, containers[pod / count % containers.len()]);
            }
            Action::LateRestart(pod) => {
                self.fleet.change_cluster(|sim| sim.delay_status(true));
                self.run(&Action::Restart(*pod));
                let breach = self.fleet.pass_for(STATUS_DELAY).err();
                self.fleet.change_cluster(|sim| sim.delay_status(false));
                return breach;
            }
            Action::StartReplica => drop(self.add()),
            Action::Kill(replica) | Action::Stop(replica) | Action::Freeze(replica) | Action::Partition(replica) => {
                if let Some(at) = choose_index(*replica, self.fleet.replicas.len()) {
                    self.run_on_replica(action, at);
                }
            }
            Action::Pause(replica, millis) => {
                let at = choose_index(*replica, self.fleet.replicas.len())?;
                return self.pause(at, Duration::from_millis((*millis).into()));
            }
            Action::StopWhileWriting(replica) => {
                let at = choose_index(*replica, self.fleet.replicas.len())?;
                return self.stop_while_writing(at);
            }
            Action::BreakHandOver(kill_requester) => return self.break_hand_over(*kill_requester),
            Action::Store(who, fault) => self.change_store(*who, *fault),
            Action::Jump(millis) => self.jump(*millis),
            Action::Sink(who, fault) => self.change_sink(*who, *fault),
            Action::Api(fault) => self.change_api(*fault),
        }
        None
    }

    fn create(&mut self, never_restarts: bool) {
        if self.pods.len() < PODS {
            self.pods_created += 1;
            self.create_with_name(format!("p{}", self.pods_created), never_restarts);
        }
    }

    fn create_with_name(&mut self, name: String, never_restarts: bool) {
        // Every third pod has a second container.
        let count = if self.pods_created.is_multiple_of(3) { 2 } else { 1 };
        let containers = &CONTAINERS[..count];
        let spec = PodSpec::new("shop", name).node("n1");
        let spec = containers.iter().fold(spec, |spec, container| spec.app(*container));
        let policy = if never_restarts {
            RestartPolicy::Never
        } else {
            RestartPolicy::Always
        };
        let pod = self.fleet.create(spec.restart_policy(policy));
        self.pods.push(CreatedPod {
            pod,
            containers,
            never_restarts,
        });
    }

    fn run_on_pod(&mut self, action: &Action, at: usize, container: &str) {
        let CreatedPod {
            pod, never_restarts, ..
        } = self.pods[at].clone();
        let fleet = &self.fleet;
        match action {
            Action::Write(_, lines) => self.fleet.write_burst(&pod, container, *lines),
            Action::WriteHalfLine(_) => self.fleet.write_half_line(&pod, container),
            Action::Rotate(_) if guards::may_rotate(fleet, &pod, container, self.fencing) => {
                fleet.change_cluster(|_| pod.rotate(container).ok());
            }
            // A rotation after the end of a silent stream, and before the next read, is not noticed.
            Action::RotateWithinLine(_) if !self.have_log_streams_just_ended() => {
                self.fleet.write_half_line(&pod, container);
                self.run_on_pod(&Action::Rotate(0), at, container);
                self.fleet.write_burst(&pod, container, 1);
            }
            Action::Exit(_, code) => drop(fleet.change_cluster(|_| pod.exit(container, *code))),
            Action::Restart(_) if !never_restarts && guards::may_restart(fleet, &pod, container) => {
                self.restart(&pod, container);
                self.fleet.write_burst(&pod, container, 1);
            }
            Action::RemoveAfterRestart(_)
                if !never_restarts
                    && guards::may_restart(fleet, &pod, container)
                    && guards::may_delete(fleet, &pod) =>
            {
                self.restart(&pod, container);
                self.fleet.change_cluster(|_| pod.remove().ok());
                self.pods.remove(at);
            }
            // The kubelet restarts no container of a pod that is being deleted.
            Action::Terminate(_) => {
                self.pods[at].never_restarts = true;
                fleet.change_cluster(|_| pod.terminate().and_then(|()| pod.exit_all(143)).ok());
            }
            Action::Remove(_) | Action::Recreate(_) if guards::may_delete(fleet, &pod) => {
                fleet.change_cluster(|_| pod.remove().ok());
                self.pods.remove(at);
                if matches!(action, Action::Recreate(_)) {
                    self.create_with_name(pod.name().to_owned(), never_restarts);
                }
            }
            _ => {}
        }
    }

    /// Ends a container, if it runs, and starts it again.
    fn restart(&self, pod: &SimPod, container: &str) {
        self.fleet.change_cluster(|_| {
            pod.exit(container, 1).ok();
            pod.start(container).ok()
        });
    }

    /// Starts a replica, unless the store's clock has just jumped. A replica that starts after a jump cannot notice it,
    /// and would acquire claims that their holders still act on.
    fn add(&mut self) -> Option<usize> {
        (!self.has_recent_clock_jump() && self.fleet.replicas.len() < REPLICAS).then(|| self.fleet.add_replica())
    }

    /// Whether a claim may still be held that was renewed before the last jump of the store's clock.
    pub(super) fn has_recent_clock_jump(&self) -> bool {
        self.clock_jumped_at
            .is_some_and(|at| self.fleet.now() <= at + LEASE.ttl)
    }

    fn have_log_streams_just_ended(&self) -> bool {
        self.log_streams_ended_at
            .is_some_and(|at| self.fleet.now() <= at + BEFORE_NEXT_READ)
    }

    fn run_on_replica(&mut self, action: &Action, at: usize) {
        let alone = self.fleet.replicas.len() == 1;
        match action {
            Action::Kill(_) if !alone => drop(self.fleet.kill(at)),
            Action::Stop(_) if !alone => self.fleet.ask_to_stop(at),
            Action::Freeze(_) if self.fleet.replicas[at].frozen => self.fleet.thaw(at),
            Action::Freeze(_) => self.fleet.freeze(at),
            Action::Partition(_) => {
                let replica = &self.fleet.replicas[at];
                let heals = !replica.api.is_open();
                replica.api.set(heals);
                replica.store.set(StoreFaults {
                    silent: !heals,
                    ..StoreFaults::default()
                });
            }
            _ => {}
        }
    }

    /// The indexes of the pods that a replica holds.
    fn pods_held_by(&self, at: usize) -> Vec<usize> {
        let (name, holders) = (&self.fleet.replicas[at].name, self.fleet.holders());
        let held = |number: &usize| holders.get(self.pods[*number].pod.uid()) == Some(name);
        (0..self.pods.len()).filter(held).collect()
    }

    /// Lets the pods of a replica write, and asks the replica to stop while its sink stores what they have written. It may
    /// not be the last one.
    fn stop_while_writing(&mut self, at: usize) -> Option<Breach> {
        self.fleet.replicas[at].sink.set_write_duration(SLOW_WRITE);
        for number in self.pods_held_by(at) {
            let pod = self.pods[number].pod.clone();
            self.fleet.write(&pod);
        }
        let breach = self.fleet.pass_for(SLOW_WRITE / 2).err();
        self.run_on_replica(&Action::Stop(0), at);
        breach
    }

    /// Freezes a replica for this time, unless it is frozen already. What happens to its pods meanwhile must not look like
    /// silence to it. Pods of other replicas are left out: a stream that ends without an error after a silence, within two
    /// seconds of a line and a rotation, looks complete.
    fn pause(&mut self, at: usize, time: Duration) -> Option<Breach> {
        if self.fleet.replicas[at].frozen {
            return None;
        }
        self.fleet.freeze(at);
        for number in self.pods_held_by(at) {
            let CreatedPod { pod, containers, .. } = self.pods[number].clone();
            for container in containers {
                self.run_on_pod(&Action::Write(0, 1), number, container);
                self.run_on_pod(&Action::Rotate(0), number, container);
            }
            let (logs, how) = (Target::logs_of("shop", pod.name()), how(!self.log_streams_muted));
            self.fleet.change_cluster(|sim| sim.cut(&logs, how));
        }
        let breach = self.fleet.pass_for(time).err();
        self.fleet.thaw(at);
        breach
    }

    /// Starts a replica, waits until a replica requests a pod from another, and kills one of the two.
    fn break_hand_over(&mut self, kill_requester: bool) -> Option<Breach> {
        self.add();
        for _ in 0..HANDOVER_TIMEOUT_SECONDS * 5 {
            let rows = self.fleet.lock_table().rows;
            let waiting = rows.iter().find(|(key, row)| {
                let pod = matches!(key, LockKey::Pod(_));
                pod && row.requested_by.is_some() && row.owner.is_some()
            });
            if let Some((_, row)) = waiting {
                let victim = if kill_requester { &row.requested_by } else { &row.owner };
                let mut replicas = self.fleet.replicas.iter();
                let at = replicas.position(|replica| victim.as_ref().is_some_and(|id| id.as_str() == replica.name));
                if let Some(at) = at.filter(|_| self.fleet.replicas.len() > 1) {
                    self.fleet.kill(at);
                }
                return None;
            }
            if let Err(breach) = self.fleet.pass_for(Duration::from_millis(200)) {
                return Some(breach);
            }
        }
        None
    }

    fn replica_indexes(&self, who: Option<u32>) -> Vec<usize> {
        let count = self.fleet.replicas.len();
        who.map_or((0..count).collect(), |who| {
            choose_index(who, count).into_iter().collect()
        })
    }

    fn change_store(&mut self, who: Option<u32>, fault: StoreFault) {
        let mut faults = StoreFaults::default();
        match fault {
            StoreFault::Fine => {}
            StoreFault::Refused => faults.refused = true,
            StoreFault::Silent => faults.silent = true,
            StoreFault::Slow(millis) => faults.delay = Duration::from_millis(millis.into()),
            StoreFault::Lost(kind, times) => drop(faults.lost.insert(kind, times)),
        }
        for at in self.replica_indexes(who) {
            self.fleet.replicas[at].store.set(faults.clone());
        }
    }

    /// Lets the store's clock jump, unless a replica has not read it yet, for the reason given at [`add`](Self::add).
    fn jump(&mut self, millis: i64) {
        let knows = self
            .fleet
            .replicas
            .iter()
            .all(|replica| replica.store.tally().table_reads > 0);
        if knows {
            self.fleet.table.skew(millis);
            self.clock_jumped_at = Some(self.fleet.now());
        }
    }

    fn change_sink(&mut self, who: Option<u32>, fault: SinkFault) {
        let mut faults = SinkFaults::default();
        match fault {
            SinkFault::Fine => {}
            SinkFault::Slow(millis) => faults.write_duration = Duration::from_millis(millis.into()),
            SinkFault::Down => faults.down = true,
            SinkFault::Rejects => faults.rejects = true,
        }
        for at in self.replica_indexes(who) {
            self.fleet.replicas[at].sink.set(faults);
        }
    }

    fn change_api(&mut self, fault: ApiFault) {
        let inject = |verb, effect, times| move |sim: &SimCluster| sim.inject(Target::verb(verb), effect, times);
        let fleet = &self.fleet;
        match fault {
            ApiFault::Cut(verb, clean) => {
                // If a muted stream ends without an error just before its pod is deleted, it looks like one that was
                // read to its end, and no log is left to compare it with.
                let clean = clean && !(verb == Verb::Log && std::mem::take(&mut self.log_streams_muted));
                if clean && verb == Verb::Log {
                    self.log_streams_ended_at = Some(self.fleet.now());
                }
                fleet.change_cluster(|sim| sim.cut(&Target::verb(verb), how(clean)));
            }
            ApiFault::Compact => fleet.change_cluster(SimCluster::compact),
            ApiFault::Mute(verb) => {
                fleet.change_cluster(|sim| sim.mute(&Target::verb(verb)));
                self.log_streams_muted |= verb == Verb::Log;
            }
            ApiFault::Unmute => drop(fleet.change_cluster(|sim| sim.unmute(&Target::default()))),
            ApiFault::CutAfter(verb, after, times) => {
                let (after, how) = (after.into(), how(after.is_multiple_of(2)));
                fleet.change_cluster(inject(verb, Fault::Cut { after, how }, times));
            }
            ApiFault::Refuse(verb, status, times) => {
                let retry_after = (status == 429).then_some(1);
                fleet.change_cluster(inject(verb, Fault::Refuse { status, retry_after }, times));
            }
            ApiFault::Disconnect(verb, times) => fleet.change_cluster(inject(verb, Fault::Disconnect, times)),
            ApiFault::Delay(verb, millis, times) => {
                let late = Fault::Delay(Duration::from_millis(millis.into()));
                fleet.change_cluster(inject(verb, late, times));
            }
        }
    }

    /// Removes replicas that have stopped. If none is left, starts one.
    pub(super) fn remove_ended(&mut self) {
        self.fleet.remove_ended();
        if self.fleet.replicas.is_empty() {
            self.fleet.add_replica();
        }
    }

    /// Ends all faults.
    pub(super) fn end_faults(&mut self) {
        self.fleet.change_cluster(|sim| {
            sim.clear_faults();
            sim.unmute(&Target::default());
            sim.delay_status(false);
        });
        for at in 0..self.fleet.replicas.len() {
            let replica = &self.fleet.replicas[at];
            replica.store.set(StoreFaults::default());
            replica.sink.set(SinkFaults::default());
            replica.api.set(true);
            if replica.frozen {
                self.fleet.thaw(at);
            }
        }
    }
}

fn how(clean: bool) -> Cut {
    if clean { Cut::Clean } else { Cut::Reset }
}
