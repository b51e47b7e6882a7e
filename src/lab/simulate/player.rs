//! Does to a world what a step of a history says, and passes over what cannot be done.
//!
//! What podlog cannot know of is not done either: each such condition says why.

use std::time::Duration;

use tokio::time::Instant;

use super::breach::Breach;
use super::history::{Act, ApiFault, Kind, SinkFault, StoreFault};
use super::sink::Trouble;
use super::store::Faults;
use super::world::{LEASE, World};
use crate::domain::{Checkpoint, LockKey};
use kube_sim::{Cut, Fault, PodSpec, RestartPolicy, SimCluster, SimPod, Target, Verb, WrittenLog};

/// No more replicas than this at a time.
const REPLICAS: usize = 5;

/// No more pods than this at a time.
const PODS: usize = 15;

/// How long somebody is waited for who asks for a pod: members must have been the same for one ttl.
const ASKED_WITHIN: u32 = 26;

/// How late a status may be: what follows a log by name looks twice in half a second, and cannot tell more.
const LAG: Duration = Duration::from_millis(300);

/// A world and the pods that were created in it.
pub(super) struct Player {
    pub(super) world: World,
    fencing: bool,
    /// Pods, and whether their containers are never restarted.
    pods: Vec<(SimPod, bool)>,
    named: usize,
    /// Whether streams have been held up since streams were cut last.
    mute: bool,
    /// When the store's clock jumped last.
    jumped: Option<Instant>,
}

/// The place that a number means among so many; none among none.
fn choose(number: u32, count: usize) -> Option<usize> {
    (number as usize).checked_rem(count)
}

impl Player {
    pub(super) fn new(world: World, fencing: bool) -> Self {
        Self {
            world,
            fencing,
            pods: Vec::new(),
            named: 0,
            mute: false,
            jumped: None,
        }
    }

    /// Does it, if it can be done.
    pub(super) fn act(&mut self, act: &Act) -> Option<Breach> {
        match act {
            Act::Nothing => {}
            Act::Create(ends) => self.create(*ends),
            Act::Write(pod, _)
            | Act::Half(pod)
            | Act::Rotate(pod)
            | Act::Exit(pod, _)
            | Act::Restart(pod)
            | Act::Terminate(pod)
            | Act::Remove(pod)
            | Act::Recreate(pod) => {
                if let Some(at) = choose(*pod, self.pods.len()) {
                    self.act_on_pod(act, at);
                }
            }
            Act::LateRestart(pod) => {
                self.world.act(|sim| sim.delay_status(true));
                self.act(&Act::Restart(*pod));
                let breach = self.world.pass_for(LAG).err();
                self.world.act(|sim| sim.delay_status(false));
                return breach;
            }
            Act::Add => drop(self.add()),
            Act::Kill(replica) | Act::Stop(replica) | Act::Freeze(replica) | Act::Partition(replica) => {
                if let Some(at) = choose(*replica, self.world.replicas.len()) {
                    self.act_on_replica(act, at);
                }
            }
            Act::BreakHandOver(asker) => return self.break_hand_over(*asker),
            Act::Store(who, fault) => self.change_store(*who, *fault),
            Act::Jump(millis) => self.jump(*millis),
            Act::Sink(who, fault) => self.change_sink(*who, *fault),
            Act::Api(fault) => self.change_api(*fault),
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
        let pod = self.world.create(spec.restart_policy(policy));
        self.pods.push((pod, ends));
    }

    fn act_on_pod(&mut self, act: &Act, at: usize) {
        let (pod, ends) = self.pods[at].clone();
        match act {
            Act::Write(_, lines) => (0..*lines).for_each(|_| self.world.write(&pod)),
            Act::Half(_) => self.world.write_half(&pod),
            Act::Rotate(_) if self.may_rotate(&pod) => {
                self.world.act(|_| pod.rotate("app").ok());
            }
            Act::Exit(_, code) => drop(self.world.act(|_| pod.exit("app", *code))),
            // The kubelet keeps one log of those before, so an instance before that would be lost without a trace.
            Act::Restart(_) if !ends && self.is_read_before(&pod) => {
                self.world.act(|_| {
                    pod.exit("app", 1).ok();
                    pod.start("app").ok()
                });
                self.world.write(&pod);
            }
            // No container of a pod that is being deleted is started again.
            Act::Terminate(_) => {
                self.pods[at].1 = true;
                self.world
                    .act(|_| pod.terminate().and_then(|()| pod.exit_all(143)).ok());
            }
            // Of a pod of which no checkpoint names the instance, no container is known, and no gap is delivered.
            Act::Remove(_) | Act::Recreate(_) if self.is_known(&pod) => {
                self.world.act(|_| pod.remove().ok());
                self.pods.remove(at);
                if matches!(act, Act::Recreate(_)) {
                    self.create_named(pod.name().to_owned(), ends);
                }
            }
            _ => {}
        }
    }

    /// The instances of the pod so far.
    fn instances(&self, pod: &SimPod) -> Vec<WrittenLog> {
        let mut truth = self.world.sim.written();
        truth.retain(|log| log.instance.uid == pod.uid());
        truth
    }

    fn is_stored(&self, log: &WrittenLog) -> bool {
        self.world.ledger.missing(log) == 0
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
        let table = self.world.rows();
        let row = table.rows.get(&World::key(pod));
        row.is_some_and(|row| row.checkpoint_len as usize > Checkpoint::default().encode().len())
            && self.instances(pod).len() == 1
    }

    /// A log that was rotated before the first line was stored shows no trace of it.
    fn may_rotate(&self, pod: &SimPod) -> bool {
        let logs = self.instances(pod);
        let placed = logs.last().is_some_and(|log| self.world.ledger.is_placed(log));
        placed && (self.is_read(pod) || self.fencing && self.is_begun(pod))
    }

    /// Whether a line of the present instance is stored, and none is half written: of that nobody could read the
    /// beginning any more.
    fn is_begun(&self, pod: &SimPod) -> bool {
        let logs = self.instances(pod);
        logs.last().is_some_and(|log| {
            let half = log.lines.last().is_some_and(|line| line.message.ends_with(b" "));
            !half && self.world.ledger.missing(log) < log.lines.len()
        })
    }

    /// A replica that starts after a jump of the store's clock cannot know of it, and takes live claims for ended
    /// ones; so none does until those have ended.
    fn add(&mut self) -> Option<usize> {
        (!self.has_jumped() && self.world.replicas.len() < REPLICAS).then(|| self.world.add())
    }

    /// Whether the store's clock has jumped while claims are held that were renewed before.
    pub(super) fn has_jumped(&self) -> bool {
        self.jumped.is_some_and(|at| self.world.now() <= at + LEASE.ttl)
    }

    fn act_on_replica(&mut self, act: &Act, at: usize) {
        let alone = self.world.replicas.len() == 1;
        match act {
            Act::Kill(_) if !alone => drop(self.world.kill(at)),
            Act::Stop(_) if !alone => self.world.ask_to_stop(at),
            Act::Freeze(_) if self.world.replicas[at].frozen => self.world.thaw(at),
            Act::Freeze(_) => self.world.freeze(at),
            Act::Partition(_) => {
                let replica = &self.world.replicas[at];
                let heals = !replica.api.is_open();
                replica.api.set(heals);
                replica.store.set(Faults {
                    silent: !heals,
                    ..Faults::default()
                });
            }
            _ => {}
        }
    }

    /// Waits until somebody is asked for a pod, and kills one of the two.
    fn break_hand_over(&mut self, asker: bool) -> Option<Breach> {
        self.add();
        for _ in 0..ASKED_WITHIN * 5 {
            let rows = self.world.rows().rows;
            let waiting = rows.iter().find(|(key, row)| {
                let pod = matches!(key, LockKey::Pod(_));
                pod && row.wanted_by.is_some() && row.owner.is_some()
            });
            if let Some((_, row)) = waiting {
                let victim = if asker { &row.wanted_by } else { &row.owner };
                let mut replicas = self.world.replicas.iter();
                let at = replicas.position(|replica| victim.as_ref().is_some_and(|id| id.as_str() == replica.name));
                if let Some(at) = at.filter(|_| self.world.replicas.len() > 1) {
                    self.world.kill(at);
                }
                return None;
            }
            if let Err(breach) = self.world.pass_for(Duration::from_millis(200)) {
                return Some(breach);
            }
        }
        None
    }

    fn chosen(&self, who: Option<u32>) -> Vec<usize> {
        let count = self.world.replicas.len();
        who.map_or((0..count).collect(), |who| choose(who, count).into_iter().collect())
    }

    fn change_store(&mut self, who: Option<u32>, fault: StoreFault) {
        let mut faults = Faults::default();
        match fault {
            StoreFault::Fine => {}
            StoreFault::Refused => faults.refused = true,
            StoreFault::Silent => faults.silent = true,
            StoreFault::Slow(millis) => faults.delay = Duration::from_millis(millis.into()),
            StoreFault::Lost(kind, times) => drop(faults.lost.insert(kind, times)),
        }
        for at in self.chosen(who) {
            self.world.replicas[at].store.set(faults.clone());
        }
    }

    /// As of [`add`](Self::add), everybody has seen the store's clock before it jumps.
    fn jump(&mut self, millis: i64) {
        let knows = self
            .world
            .replicas
            .iter()
            .all(|replica| replica.store.tally().looks > 0);
        if knows {
            self.world.table.skew(millis);
            self.jumped = Some(self.world.now());
        }
    }

    fn change_sink(&mut self, who: Option<u32>, fault: SinkFault) {
        let mut trouble = Trouble::default();
        match fault {
            SinkFault::Fine => {}
            SinkFault::Slow(millis) => trouble.takes = Duration::from_millis(millis.into()),
            SinkFault::Down => trouble.down = true,
            SinkFault::Rejects => trouble.rejects = true,
        }
        for at in self.chosen(who) {
            self.world.replicas[at].sink.set(trouble);
        }
    }

    fn change_api(&mut self, fault: ApiFault) {
        let inject = |kind, effect, times| move |sim: &SimCluster| sim.inject(Target::verb(verb(kind)), effect, times);
        let world = &self.world;
        match fault {
            ApiFault::Cut(kind, clean) => {
                // A stream that is held up and then ends in order, just before its pod is deleted, looks like one that
                // was read to its end, and there is no log left to compare it with.
                let clean = clean && !(kind == Kind::Log && std::mem::take(&mut self.mute));
                world.act(|sim| sim.cut(&Target::verb(verb(kind)), how(clean)));
            }
            ApiFault::Compact => world.act(SimCluster::compact),
            ApiFault::Mute(kind) => {
                world.act(|sim| sim.freeze(&Target::verb(verb(kind))));
                self.mute |= kind == Kind::Log;
            }
            ApiFault::Unmute => drop(world.act(|sim| sim.thaw(&Target::default()))),
            ApiFault::Short(kind, after, times) => {
                let (after, how) = (after.into(), how(after.is_multiple_of(2)));
                world.act(inject(kind, Fault::Cut { after, how }, times));
            }
            ApiFault::Refuse(kind, status, times) => {
                let retry_after = (status == 429).then_some(1);
                world.act(inject(kind, Fault::Refuse { status, retry_after }, times));
            }
            ApiFault::Disconnect(kind, times) => world.act(inject(kind, Fault::Disconnect, times)),
            ApiFault::Delay(kind, millis, times) => {
                let late = Fault::Delay(Duration::from_millis(millis.into()));
                world.act(inject(kind, late, times));
            }
        }
    }

    /// Removes replicas that have stopped; one is always left.
    pub(super) fn bury(&mut self) {
        self.world.bury();
        if self.world.replicas.is_empty() {
            self.world.add();
        }
    }

    /// Ends all faults.
    pub(super) fn heal(&mut self) {
        self.world.act(|sim| {
            sim.clear_faults();
            sim.thaw(&Target::default());
            sim.delay_status(false);
        });
        for at in 0..self.world.replicas.len() {
            let replica = &self.world.replicas[at];
            replica.store.set(Faults::default());
            replica.sink.set(Trouble::default());
            replica.api.set(true);
            if replica.frozen {
                self.world.thaw(at);
            }
        }
    }
}

fn verb(kind: Kind) -> Verb {
    match kind {
        Kind::Log => Verb::Log,
        Kind::Watch => Verb::Watch,
        Kind::List => Verb::List,
        Kind::Get => Verb::Get,
    }
}

fn how(clean: bool) -> Cut {
    if clean { Cut::Clean } else { Cut::Reset }
}
