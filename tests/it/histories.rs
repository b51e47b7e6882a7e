//! Random histories of whole collectors: pods, replicas, the store and streams suffer what comes by
//! chance from a seed, and at the end everything is stored or covered by a gap.
//!
//! `PODLOG_TEST_SEEDS=from..to` plays others than the usual ones.

use std::time::Duration;

use fastrand::Rng;
use podlog::domain::Checkpoint;
use podlog::sim::{Cut, PodSpec, RestartPolicy, SimCluster, SimPod, Target, Verb};

use crate::flaky::Faults;
use crate::world::World;

const REPLICAS: usize = 5;
const PODS: usize = 15;

struct History {
    world: World,
    fencing: bool,
    rng: Rng,
    pods: Vec<SimPod>,
    named: usize,
    log: Vec<String>,
}

impl History {
    fn new(seed: u64) -> Self {
        let mut history = Self {
            world: World::seeded(seed.is_multiple_of(2), seed),
            fencing: seed.is_multiple_of(2),
            rng: Rng::with_seed(seed),
            pods: Vec::new(),
            named: 0,
            log: Vec::new(),
        };
        for _ in 0..history.rng.usize(1..4) {
            history.world.add();
        }
        history
    }

    fn note(&mut self, what: String) {
        self.log.push(what);
    }

    fn play(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.rng.u32(0..100) {
                0..40 => self.write(),
                40..50 => self.create(),
                50..62 => self.change_pod(),
                62..74 => self.change_replicas(),
                74..86 => self.change_store(),
                86..92 => self.cut(),
                _ => {}
            }
            let wait = self.rng.u64(20..2500);
            self.world.pass_for(Duration::from_millis(wait));
            self.bury();
        }
    }

    fn write(&mut self) {
        for _ in 0..self.rng.usize(1..8) {
            if let Some(pod) = self.rng.choice(self.pods.clone()) {
                self.world.write(&pod);
            }
        }
    }

    fn create(&mut self) {
        if self.pods.len() >= PODS {
            return;
        }
        self.named += 1;
        let spec = PodSpec::new("shop", format!("p{}", self.named)).node("n1").app("app");
        let policy = if self.rng.bool() {
            RestartPolicy::Never
        } else {
            RestartPolicy::Always
        };
        let pod = self.world.create(spec.restart_policy(policy));
        self.note(format!("create {} {policy:?} {}", pod.name(), pod.uid()));
        self.pods.push(pod);
    }

    fn change_pod(&mut self) {
        let Some(at) = (!self.pods.is_empty()).then(|| self.rng.usize(0..self.pods.len())) else {
            return;
        };
        let pod = self.pods[at].clone();
        match self.rng.u32(0..5) {
            // A log that was rotated before the first line was stored shows no trace of it.
            0 if self.is_read(&pod) || self.fencing && self.is_begun(&pod) => {
                self.note(format!("rotate {}", pod.name()));
                self.world.act(|_| pod.rotate("app").ok());
            }
            1 => {
                self.note(format!("exit {}", pod.name()));
                self.world.act(|_| pod.exit("app", 0).ok());
            }
            2 if self.is_read(&pod) => {
                self.note(format!("restart {}", pod.name()));
                if self.world.act(|_| pod.restart("app", 1).is_ok()) {
                    self.world.write(&pod);
                }
            }
            // Of a pod of which no checkpoint names the instance, no container is known, and no gap is delivered.
            3 if self.is_known(&pod) => {
                self.note(format!("remove {}", pod.name()));
                self.world.act(|_| pod.remove().unwrap());
                self.pods.remove(at);
            }
            _ => self.world.write(&pod),
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

    fn change_replicas(&mut self) {
        let count = self.world.replicas.len();
        let at = self.rng.usize(0..count);
        match self.rng.u32(0..5) {
            0 | 1 if count < REPLICAS => {
                let at = self.world.add();
                self.note(format!("add {}", self.world.replicas[at].name));
            }
            2 if count > 1 => {
                let name = self.world.kill(at);
                self.note(format!("kill {name}"));
            }
            3 if count > 1 => {
                self.note(format!("stop {}", self.world.replicas[at].name));
                self.world.ask_to_stop(at);
            }
            _ => {
                let frozen = self.world.replicas[at].frozen;
                self.note(format!(
                    "{} {}",
                    if frozen { "thaw" } else { "freeze" },
                    self.world.replicas[at].name
                ));
                if frozen {
                    self.world.thaw(at);
                } else {
                    self.world.freeze(at);
                }
            }
        }
    }

    /// Removes replicas that have stopped; one is always left.
    fn bury(&mut self) {
        for at in (0..self.world.replicas.len()).rev() {
            if self.world.ended(at) {
                self.world.kill(at);
            }
        }
        if self.world.replicas.is_empty() {
            self.world.add();
        }
    }

    fn change_store(&mut self) {
        let mut faults = Faults::default();
        match self.rng.u32(0..5) {
            0 => faults.refused = true,
            1 => faults.silent = true,
            2 => faults.delay = Duration::from_millis(self.rng.u64(0..2900)),
            3 => {
                let kind = self
                    .rng
                    .choice(["acquire", "renew", "release", "table", "ask", "refuse", "forget"]);
                faults.lost.insert(kind.unwrap(), self.rng.u32(1..4));
            }
            _ => {}
        }
        let all = self.rng.u32(0..4) == 0;
        let chosen = self.rng.usize(0..self.world.replicas.len());
        for (at, replica) in self.world.replicas.iter().enumerate() {
            if all || at == chosen {
                replica.store.set(faults.clone());
            }
        }
        let whose = if all { "all" } else { &*self.world.replicas[chosen].name }.to_owned();
        self.note(format!("store of {whose}: {faults:?}"));
    }

    fn cut(&mut self) {
        let verb = if self.rng.bool() { Verb::Log } else { Verb::Watch };
        let how = if self.rng.bool() { Cut::Clean } else { Cut::Reset };
        self.note(format!("cut {verb:?} {how:?}"));
        self.world.act(|sim| sim.cut(&Target::verb(verb), how));
        if self.rng.bool() {
            self.world.act(SimCluster::compact);
        }
    }

    /// All faults end; what is left to do is done.
    fn rest(&mut self) {
        for at in 0..self.world.replicas.len() {
            self.world.replicas[at].store.set(Faults::default());
            if self.world.replicas[at].frozen {
                self.world.thaw(at);
            }
        }
        for round in 0..15 {
            self.world.pass(10);
            self.bury();
            if round == 4 {
                // Of a file that was rotated away unread an empty log shows nothing; its next line does.
                self.world.write_all();
            }
        }
    }

    fn judge(&self) {
        let found = self.world.reckon();
        assert_eq!((found.lost, found.disordered), (0, 0), "{found:?}");
        assert!(!self.fencing || found.twice == 0, "{found:?}");
        self.world.assert_even();
        let pods = self.world.sim.pods();
        let unfinished = self.world.rows().rows.into_iter().filter(|(_, row)| !row.finished);
        let rows = unfinished.filter_map(|(key, _)| key.pod().cloned());
        let left: Vec<_> = rows
            .filter(|uid| !pods.iter().any(|pod| pod.uid() == uid.as_str()))
            .collect();
        assert!(left.is_empty(), "rows without a pod: {left:?}");
        for pod in self.world.sim.pods() {
            let row = &self.world.rows().rows[&World::key(&pod)];
            assert!(
                row.finished || row.expires_in > 0 && row.owner.is_some(),
                "{}: {row:?}",
                pod.name()
            );
        }
    }
}

/// Whether the history came to a good end.
fn play(seed: u64) -> bool {
    let mut history = History::new(seed);
    let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        history.play(60);
        history.rest();
        history.judge();
    }));
    if played.is_err() {
        println!("seed {seed}:\n{}", history.log.join("\n"));
    }
    played.is_ok()
}

#[test]
fn whatever_happens_every_line_is_stored_or_covered_by_a_gap() {
    let seeds = std::env::var("PODLOG_TEST_SEEDS").unwrap_or_else(|_| "0..50".into());
    let (from, to) = seeds.split_once("..").unwrap();
    let seeds = from.parse().unwrap()..to.parse().unwrap();
    // Each on a thread of its own, where clocks begin anew: else it would matter which came before.
    let ends_well = |seed| std::thread::spawn(move || play(seed)).join().unwrap();
    let failed: Vec<u64> = seeds.filter(|seed| !ends_well(*seed)).collect();
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
}
