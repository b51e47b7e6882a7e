//! Does to a world what a step of a history says, and passes over what cannot be done.
//!
//! What podlog cannot know of is not done either: each such condition says why.

use std::time::Duration;

use super::history::{Act, StoreFault};
use super::store::Faults;
use super::world::World;
use crate::domain::Checkpoint;
use crate::sim::{Cut, PodSpec, RestartPolicy, SimCluster, SimPod, Target, Verb};

/// No more replicas than this at a time.
const REPLICAS: usize = 5;

/// No more pods than this at a time.
const PODS: usize = 15;

/// A world and the pods that were created in it.
pub(super) struct Player {
    pub(super) world: World,
    fencing: bool,
    pods: Vec<SimPod>,
    named: usize,
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
        }
    }

    /// Does it, if it can be done.
    pub(super) fn act(&mut self, act: &Act) {
        match act {
            Act::Nothing => {}
            Act::Create(ends) => self.create(*ends),
            Act::Write(pod, _) | Act::Rotate(pod) | Act::Exit(pod, _) | Act::Restart(pod) | Act::Remove(pod) => {
                if let Some(at) = choose(*pod, self.pods.len()) {
                    self.act_on_pod(act, at);
                }
            }
            Act::Add => {
                if self.world.replicas.len() < REPLICAS {
                    self.world.add();
                }
            }
            Act::Kill(replica) | Act::Stop(replica) | Act::Freeze(replica) => {
                if let Some(at) = choose(*replica, self.world.replicas.len()) {
                    self.act_on_replica(act, at);
                }
            }
            Act::Store(who, fault) => self.change_store(*who, *fault),
            Act::Cut {
                watches,
                clean,
                compact,
            } => {
                let verb = if *watches { Verb::Watch } else { Verb::Log };
                let how = if *clean { Cut::Clean } else { Cut::Reset };
                self.world.act(|sim| sim.cut(&Target::verb(verb), how));
                if *compact {
                    self.world.act(SimCluster::compact);
                }
            }
        }
    }

    fn create(&mut self, ends: bool) {
        if self.pods.len() >= PODS {
            return;
        }
        self.named += 1;
        let spec = PodSpec::new("shop", format!("p{}", self.named)).node("n1").app("app");
        let policy = if ends {
            RestartPolicy::Never
        } else {
            RestartPolicy::Always
        };
        self.pods.push(self.world.create(spec.restart_policy(policy)));
    }

    fn act_on_pod(&mut self, act: &Act, at: usize) {
        let pod = self.pods[at].clone();
        match act {
            Act::Write(_, lines) => (0..*lines).for_each(|_| self.world.write(&pod)),
            // A log that was rotated before the first line was stored shows no trace of it.
            Act::Rotate(_) if self.is_read(&pod) || self.fencing && self.is_begun(&pod) => {
                self.world.act(|_| pod.rotate("app").ok());
            }
            Act::Exit(_, code) => {
                self.world.act(|_| pod.exit("app", *code).ok());
            }
            Act::Restart(_) if self.is_read(&pod) && self.world.act(|_| pod.restart("app", 1).is_ok()) => {
                self.world.write(&pod);
            }
            // Of a pod of which no checkpoint names the instance, no container is known, and no gap is delivered.
            Act::Remove(_) if self.is_known(&pod) => {
                self.world.act(|_| pod.remove().ok());
                self.pods.remove(at);
            }
            _ => {}
        }
    }

    /// How many lines each instance of the pod has written.
    fn written(&self, pod: &SimPod) -> Vec<usize> {
        let truth = self.world.sim.truth();
        let own = truth.iter().filter(|log| log.instance.uid == pod.uid());
        own.map(|log| log.lines.len()).collect()
    }

    /// Whether all instances so far are stored, so that a restart loses sight of none.
    fn is_read(&self, pod: &SimPod) -> bool {
        let written = self.written(pod);
        written.last() != Some(&0) && self.world.ledger.count(pod.uid()) >= written.iter().sum()
    }

    /// Whether the table says which instance of the pod is read.
    fn is_known(&self, pod: &SimPod) -> bool {
        let table = self.world.rows();
        let row = table.rows.get(&World::key(pod));
        row.is_some_and(|row| row.checkpoint_len as usize > Checkpoint::default().encode().len())
            && self.written(pod).len() == 1
    }

    /// Whether a line of the present instance is stored.
    fn is_begun(&self, pod: &SimPod) -> bool {
        let written = self.written(pod);
        let before: usize = written.iter().rev().skip(1).sum();
        self.world.ledger.count(pod.uid()) > before
    }

    fn act_on_replica(&mut self, act: &Act, at: usize) {
        let alone = self.world.replicas.len() == 1;
        match act {
            Act::Kill(_) if !alone => {
                self.world.kill(at);
            }
            Act::Stop(_) if !alone => self.world.ask_to_stop(at),
            Act::Freeze(_) if self.world.replicas[at].frozen => self.world.thaw(at),
            Act::Freeze(_) => self.world.freeze(at),
            _ => {}
        }
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
        let chosen = who.and_then(|who| choose(who, self.world.replicas.len()));
        for (at, replica) in self.world.replicas.iter().enumerate() {
            if chosen.is_none_or(|chosen| chosen == at) {
                replica.store.set(faults.clone());
            }
        }
    }

    /// Removes replicas that have stopped; one is always left.
    pub(super) fn bury(&mut self) {
        for at in (0..self.world.replicas.len()).rev() {
            if self.world.ended(at) {
                self.world.kill(at);
            }
        }
        if self.world.replicas.is_empty() {
            self.world.add();
        }
    }

    /// Ends all faults.
    pub(super) fn heal(&mut self) {
        for at in 0..self.world.replicas.len() {
            self.world.replicas[at].store.set(Faults::default());
            if self.world.replicas[at].frozen {
                self.world.thaw(at);
            }
        }
    }
}
