//! Carries out the actions of a history on a fleet and skips what is impossible.
//!
//! It also skips what podlog cannot detect; each such condition says why.

use std::time::Duration;

use tokio::time::Instant;

use super::fleet::{Fleet, pod_key};
use super::history::{Action, ApiFault, SinkFault, StoreFault};
use super::lease::LEASE;
use super::rule::Breach;
use super::sink::SinkFaults;
use super::store::StoreFaults;
use crate::domain::{Checkpoint, LockKey};
use kube_sim::{Cut, Fault, PodSpec, RestartPolicy, SimCluster, SimPod, Target, Verb, WrittenLog};

/// No more replicas than this at a time.
const REPLICAS: usize = 5;

/// No more pods than this at a time.
const PODS: usize = 15;

/// Seconds to wait until a replica asks another for a pod: the set of replicas must have been the same for one ttl.
const ASKED_WITHIN: u32 = 26;

/// How late a status may be: a reader fetches the pod of a log twice within half a second, and cannot notice a longer
/// delay.
const LAG: Duration = Duration::from_millis(300);

/// A fleet and the pods that were created in it.
pub(super) struct ActionRunner {
    pub(super) fleet: Fleet,
    fencing: bool,
    /// Pods, and whether their containers are never restarted.
    pods: Vec<(SimPod, bool)>,
    named: usize,
    /// Whether log streams have been muted since log streams were last cut.
    log_streams_muted: bool,
    /// Time of the last jump of the store's clock.
    jumped: Option<Instant>,
}

/// The index that a number means among this many; `None` if there is none.
fn choose(number: u32, count: usize) -> Option<usize> {
    (number as usize).checked_rem(count)
}

impl ActionRunner {
    pub(super) fn new(fleet: Fleet, fencing: bool) -> Self {
        Self {
            fleet,
            fencing,
            pods: Vec::new(),
            named: 0,
            log_streams_muted: false,
            jumped: None,
        }
    }

    /// Carries out an action, if it is possible.
    pub(super) fn run(&mut self, action: &Action) -> Option<Breach> {
        match action {
            Action::Nothing => {}
            Action::Create(ends) => self.create(*ends),
            Action::Write(pod, _)
            | Action::Half(pod)
            | Action::Rotate(pod)
            | Action::Exit(pod, _)
            | Action::Restart(pod)
            | Action::Terminate(pod)
            | Action::Remove(pod)
            | Action::Recreate(pod) => {
                if let Some(at) = choose(*pod, self.pods.len()) {
                    self.run_on_pod(action, at);
                }
            }
            Action::LateRestart(pod) => {
                self.fleet.act(|sim| sim.delay_status(true));
                self.run(&Action::Restart(*pod));
                let breach = self.fleet.pass_for(LAG).err();
                self.fleet.act(|sim| sim.delay_status(false));
                return breach;
            }
            Action::Add => drop(self.add()),
            Action::Kill(replica) | Action::Stop(replica) | Action::Freeze(replica) | Action::Partition(replica) => {
                if let Some(at) = choose(*replica, self.fleet.replicas.len()) {
                    self.run_on_replica(action, at);
                }
            }
            Action::BreakHandOver(asker) => return self.break_hand_over(*asker),
            Action::Store(who, fault) => self.change_store(*who, *fault),
            Action::Jump(millis) => self.jump(*millis),
            Action::Sink(who, fault) => self.change_sink(*who, *fault),
            Action::Api(fault) => self.change_api(*fault),
        }
        None
    }

    fn create(&mut self, ends: bool) {
        if self.pods.len() < PODS {
            self.named += 1;
            self.create_named(format!("p{}", self.named), ends);
        }
    }

    fn create_named(&mut self, name: String, ends: bool) {
        let spec = PodSpec::new("shop", name).node("n1").app("app");
        let policy = if ends {
            RestartPolicy::Never
        } else {
            RestartPolicy::Always
        };
        let pod = self.fleet.create(spec.restart_policy(policy));
        self.pods.push((pod, ends));
    }

    fn run_on_pod(&mut self, action: &Action, at: usize) {
        let (pod, ends) = self.pods[at].clone();
        match action {
            Action::Write(_, lines) => (0..*lines).for_each(|_| self.fleet.write(&pod)),
            Action::Half(_) => self.fleet.write_half(&pod),
            Action::Rotate(_) if self.may_rotate(&pod) => {
                self.fleet.act(|_| pod.rotate("app").ok());
            }
            Action::Exit(_, code) => drop(self.fleet.act(|_| pod.exit("app", *code))),
            // The kubelet keeps the log of one previous instance; an earlier one would be lost without a trace.
            Action::Restart(_) if !ends && self.is_read_before(&pod) => {
                self.fleet.act(|_| {
                    pod.exit("app", 1).ok();
                    pod.start("app").ok()
                });
                self.fleet.write(&pod);
            }
            // No container of a pod that is being deleted is started again.
            Action::Terminate(_) => {
                self.pods[at].1 = true;
                self.fleet
                    .act(|_| pod.terminate().and_then(|()| pod.exit_all(143)).ok());
            }
            // Unless a checkpoint names the instance, the containers of a deleted pod are unknown, and no gap is
            // stored.
            Action::Remove(_) | Action::Recreate(_) if self.is_known(&pod) => {
                self.fleet.act(|_| pod.remove().ok());
                self.pods.remove(at);
                if matches!(action, Action::Recreate(_)) {
                    self.create_named(pod.name().to_owned(), ends);
                }
            }
            _ => {}
        }
    }

    /// The instances of the pod so far.
    fn instances(&self, pod: &SimPod) -> Vec<WrittenLog> {
        let mut truth = self.fleet.sim.written();
        truth.retain(|log| log.instance.uid == pod.uid());
        truth
    }

    fn is_stored(&self, log: &WrittenLog) -> bool {
        self.fleet.ledger.missing(log) == 0
    }

    /// Whether all instances so far are stored, and the present one has written.
    fn is_read(&self, pod: &SimPod) -> bool {
        let logs = self.instances(pod);
        logs.last().is_some_and(|log| !log.lines.is_empty()) && logs.iter().all(|log| self.is_stored(log))
    }

    /// Whether all instances before the present one are stored.
    fn is_read_before(&self, pod: &SimPod) -> bool {
        let logs = self.instances(pod);
        logs.iter().rev().skip(1).all(|log| self.is_stored(log))
    }

    /// Whether the table says which instance of the pod is read.
    fn is_known(&self, pod: &SimPod) -> bool {
        let table = self.fleet.rows();
        let row = table.rows.get(&pod_key(pod));
        row.is_some_and(|row| row.checkpoint_len as usize > Checkpoint::default().encode().len())
            && self.instances(pod).len() == 1
    }

    /// A log that was rotated before the first line was stored shows no trace of it.
    fn may_rotate(&self, pod: &SimPod) -> bool {
        let logs = self.instances(pod);
        let placed = logs.last().is_some_and(|log| self.fleet.ledger.is_placed(log));
        placed && (self.is_read(pod) || self.fencing && self.is_begun(pod))
    }

    /// Whether a line of the present instance is stored, and none is half written: its beginning could not be read any
    /// more.
    fn is_begun(&self, pod: &SimPod) -> bool {
        let logs = self.instances(pod);
        logs.last().is_some_and(|log| {
            let half = log.lines.last().is_some_and(|line| line.message.ends_with(b" "));
            !half && self.fleet.ledger.missing(log) < log.lines.len()
        })
    }

    /// A replica that starts after a jump of the store's clock cannot know of it, and would treat live claims as
    /// expired; so none starts until those have ended.
    fn add(&mut self) -> Option<usize> {
        (!self.has_jumped() && self.fleet.replicas.len() < REPLICAS).then(|| self.fleet.add())
    }

    /// Whether the store's clock has jumped while claims are held that were renewed before.
    pub(super) fn has_jumped(&self) -> bool {
        self.jumped.is_some_and(|at| self.fleet.now() <= at + LEASE.ttl)
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

    /// Waits until a replica asks another for a pod, and kills one of the two.
    fn break_hand_over(&mut self, asker: bool) -> Option<Breach> {
        self.add();
        for _ in 0..ASKED_WITHIN * 5 {
            let rows = self.fleet.rows().rows;
            let waiting = rows.iter().find(|(key, row)| {
                let pod = matches!(key, LockKey::Pod(_));
                pod && row.requested_by.is_some() && row.owner.is_some()
            });
            if let Some((_, row)) = waiting {
                let victim = if asker { &row.requested_by } else { &row.owner };
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

    fn chosen(&self, who: Option<u32>) -> Vec<usize> {
        let count = self.fleet.replicas.len();
        who.map_or((0..count).collect(), |who| choose(who, count).into_iter().collect())
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
        for at in self.chosen(who) {
            self.fleet.replicas[at].store.set(faults.clone());
        }
    }

    /// As with [`add`](Self::add): every replica must have seen the store's clock before it jumps.
    fn jump(&mut self, millis: i64) {
        let knows = self
            .fleet
            .replicas
            .iter()
            .all(|replica| replica.store.tally().looks > 0);
        if knows {
            self.fleet.table.skew(millis);
            self.jumped = Some(self.fleet.now());
        }
    }

    fn change_sink(&mut self, who: Option<u32>, fault: SinkFault) {
        let mut faults = SinkFaults::default();
        match fault {
            SinkFault::Fine => {}
            SinkFault::Slow(millis) => faults.takes = Duration::from_millis(millis.into()),
            SinkFault::Down => faults.down = true,
            SinkFault::Rejects => faults.rejects = true,
        }
        for at in self.chosen(who) {
            self.fleet.replicas[at].sink.set(faults);
        }
    }

    fn change_api(&mut self, fault: ApiFault) {
        let inject = |verb, effect, times| move |sim: &SimCluster| sim.inject(Target::verb(verb), effect, times);
        let fleet = &self.fleet;
        match fault {
            ApiFault::Cut(verb, clean) => {
                // A stream that is held up and then ends in order, just before its pod is deleted, looks like one that
                // was read to its end, and there is no log left to compare it with.
                let clean = clean && !(verb == Verb::Log && std::mem::take(&mut self.log_streams_muted));
                fleet.act(|sim| sim.cut(&Target::verb(verb), how(clean)));
            }
            ApiFault::Compact => fleet.act(SimCluster::compact),
            ApiFault::Mute(verb) => {
                fleet.act(|sim| sim.mute(&Target::verb(verb)));
                self.log_streams_muted |= verb == Verb::Log;
            }
            ApiFault::Unmute => drop(fleet.act(|sim| sim.unmute(&Target::default()))),
            ApiFault::Short(verb, after, times) => {
                let (after, how) = (after.into(), how(after.is_multiple_of(2)));
                fleet.act(inject(verb, Fault::Cut { after, how }, times));
            }
            ApiFault::Refuse(verb, status, times) => {
                let retry_after = (status == 429).then_some(1);
                fleet.act(inject(verb, Fault::Refuse { status, retry_after }, times));
            }
            ApiFault::Disconnect(verb, times) => fleet.act(inject(verb, Fault::Disconnect, times)),
            ApiFault::Delay(verb, millis, times) => {
                let late = Fault::Delay(Duration::from_millis(millis.into()));
                fleet.act(inject(verb, late, times));
            }
        }
    }

    /// Removes replicas that have stopped; one is always left.
    pub(super) fn remove_ended(&mut self) {
        self.fleet.remove_ended();
        if self.fleet.replicas.is_empty() {
            self.fleet.add();
        }
    }

    /// Ends all faults.
    pub(super) fn end_faults(&mut self) {
        self.fleet.act(|sim| {
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
