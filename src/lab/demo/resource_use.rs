//! The resource use of the replicas, and whether it grows: resident memory, open files and threads from `/proc` (only
//! on Linux), and tasks from the replicas' metrics. The resource use of the demo itself is only shown, because the demo
//! keeps every written line and so always grows.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::trend::Trend;

/// Time between two samples in a soak of five minutes or more. It is less in a shorter soak.
const EVERY: Duration = Duration::from_secs(10);

/// How long the samples of a new process are left out, while it opens its connections and first streams.
const WARM_UP: Duration = Duration::from_mins(1);

/// The number of open files, and of tasks, may grow by this much plus one for each pod. A replica that collects a third
/// of 60 pods has about 40 open files, one that collects half of them 52, and the shares change whenever a replica dies
/// or starts. A leak of one file for each stream, renewal or cut connection is hundreds within half an hour.
const FILES: f64 = 16.0;

/// Memory may grow by this many MiB per hour, because heaps settle and shares of pods change.
const MEMORY: f64 = 20.0;

/// The least number of hours over which memory is checked. The growth of a heap in its first minutes does not continue.
const LONG_ENOUGH: f64 = 10.0 / 60.0;

const MEBIBYTE: f64 = 1_024.0 * 1_024.0;

/// What one process uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ResourceUse {
    /// Bytes.
    memory: f64,
    files: f64,
    threads: f64,
    /// `None` if the process did not answer, for example because it was frozen.
    tasks: Option<f64>,
}

impl ResourceUse {
    /// The present resource use of a process. `tasks` comes from its metrics. `None` if it has ended, or on other
    /// systems than Linux.
    pub(super) fn measure(process: u32, tasks: Option<f64>) -> Option<Self> {
        let place = Path::new("/proc").join(process.to_string());
        let files = place.join("fd").read_dir().ok()?.count() as f64;
        Self::read(&std::fs::read_to_string(place.join("status")).ok()?, files, tasks)
    }

    fn read(status: &str, files: f64, tasks: Option<f64>) -> Option<Self> {
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        Some(Self {
            memory: number("VmRSS:")? * 1_024.0,
            files,
            threads: number("Threads:")?,
            tasks,
        })
    }
}

/// All samples so far.
#[derive(Debug)]
pub(super) struct Samples {
    every: Duration,
    warm_up: Duration,
    /// By how much the number of open files, and of tasks, may grow.
    allowed: f64,
    last: Option<Duration>,
    replicas: BTreeMap<String, Vec<(Duration, ResourceUse)>>,
    demo: Vec<(Duration, ResourceUse)>,
}

impl Samples {
    /// No samples yet, for a soak of this length with this many pods.
    pub(super) fn new(soak: Duration, pods: u32) -> Self {
        Self {
            every: (soak / 30).clamp(Duration::from_secs(1), EVERY),
            warm_up: (soak / 4).min(WARM_UP),
            allowed: FILES + f64::from(pods),
            last: None,
            replicas: BTreeMap::new(),
            demo: Vec::new(),
        }
    }

    /// Whether it is time for another sample.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.last.is_none_or(|last| now >= last + self.every)
    }

    /// Adds a sample of each replica, by name, and of the demo itself.
    pub(super) fn add(&mut self, now: Duration, replicas: Vec<(String, ResourceUse)>, demo: Option<ResourceUse>) {
        self.last = Some(now);
        for (name, sample) in replicas {
            self.replicas.entry(name).or_default().push((now, sample));
        }
        self.demo.extend(demo.map(|sample| (now, sample)));
    }

    /// The trends. `None` if there are too few samples.
    pub(super) fn figures(&self) -> Option<Figures> {
        let grown = |seen: &Vec<(Duration, ResourceUse)>| {
            let started = seen.first().map_or(Duration::ZERO, |(at, _)| *at);
            let old = seen.iter().filter(|(at, _)| *at >= started + self.warm_up).copied();
            let old: Vec<_> = old.collect();
            let span = old
                .last()
                .zip(old.first())
                .map(|(last, first)| last.0.saturating_sub(first.0));
            // With fewer samples the slope would not be reliable.
            span.filter(|span| *span >= self.warm_up).map(|_| old)
        };
        let replicas: Vec<_> = self.replicas.values().filter_map(grown).collect();
        Some(Figures {
            replicas: ResourceTrends::fit(&replicas)?,
            counted: replicas.len(),
            allowed: self.allowed,
            demo: ResourceTrends::fit(std::slice::from_ref(&self.demo))?,
        })
    }
}

/// The trends of some processes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct ResourceTrends {
    memory_mib: Trend,
    open_files: Trend,
    threads: Trend,
    tasks: Trend,
}

impl ResourceTrends {
    fn fit(processes: &[Vec<(Duration, ResourceUse)>]) -> Option<Self> {
        let trend = |figure: fn(&ResourceUse) -> Option<f64>| {
            let at = |(at, u): &(Duration, ResourceUse)| figure(u).map(|figure| (at.as_secs_f64(), figure));
            let one = |seen: &Vec<(Duration, ResourceUse)>| seen.iter().filter_map(at).collect();
            Trend::fit(&processes.iter().map(one).collect::<Vec<_>>())
        };
        Some(Self {
            memory_mib: trend(|u| Some(u.memory / MEBIBYTE))?,
            open_files: trend(|u| Some(u.files))?,
            threads: trend(|u| Some(u.threads))?,
            tasks: trend(|u| u.tasks)?,
        })
    }

    fn json(&self) -> Value {
        json!({
            "memory_mib": self.memory_mib.json(),
            "open_files": self.open_files.json(),
            "threads": self.threads.json(),
            "tasks": self.tasks.json(),
        })
    }
}

impl std::fmt::Display for ResourceTrends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            memory_mib,
            open_files,
            threads,
            tasks,
        } = self;
        write!(
            f,
            "memory_mib {memory_mib} open_files {open_files} threads {threads} tasks {tasks}"
        )
    }
}

/// The resource use of the processes of a soak.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Figures {
    replicas: ResourceTrends,
    /// How many replicas ran long enough to count.
    counted: usize,
    /// By how much the number of open files, and of tasks, may grow.
    allowed: f64,
    demo: ResourceTrends,
}

impl Figures {
    /// The resources whose use grows too much.
    pub(super) fn failures(&self) -> Vec<String> {
        let ResourceTrends {
            memory_mib,
            open_files,
            tasks,
            ..
        } = &self.replicas;
        let mut failures = Vec::new();
        for (name, trend) in [("open files", open_files), ("tasks", tasks)] {
            if trend.certain_slope() > 0.0 && trend.slope * trend.hours > self.allowed {
                failures.push(format!("the replicas' {name} grow: {trend}"));
            }
        }
        if memory_mib.hours >= LONG_ENOUGH && memory_mib.certain_slope() > MEMORY {
            failures.push(format!("the replicas' memory in MiB grows: {memory_mib}"));
        }
        failures
    }

    /// One line for the replicas and one for the demo itself.
    pub(super) fn lines(&self) -> String {
        format!(
            "soak: {} counted={}\nsoak of the demo itself: {}",
            self.replicas, self.counted, self.demo
        )
    }

    /// The same as JSON.
    pub(super) fn json(&self) -> Value {
        json!({"replicas": self.replicas.json(), "counted": self.counted, "demo": self.demo.json()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A soak of half an hour of one replica, and another that lives for a minute.
    fn soak(memory: impl Fn(f64) -> f64, files: impl Fn(f64) -> f64) -> Figures {
        let mut samples = Samples::new(Duration::from_mins(30), 4);
        for n in 0..180_u32 {
            let at = f64::from(n) * 10.0;
            let seen = ResourceUse {
                memory: memory(at) * MEBIBYTE,
                files: files(at),
                threads: 5.0,
                // Every third time it does not answer.
                tasks: (n % 3 > 0).then(|| files(at)),
            };
            let time = Duration::from_secs(n.into()) * 10;
            samples
                .replicas
                .entry("replica-1".into())
                .or_default()
                .push((time, seen));
            samples.demo.push((time, seen));
            if n < 6 {
                samples
                    .replicas
                    .entry("replica-2".into())
                    .or_default()
                    .push((time, seen));
            }
        }
        samples.figures().unwrap()
    }

    #[test]
    fn constant_use_is_no_failure_and_replicas_that_ran_only_briefly_do_not_count() {
        let figures = soak(
            |at| if at < 60.0 { at } else { 30.0 },
            |at| if at < 60.0 { 9.0 } else { 20.0 },
        );
        assert_eq!(figures.failures(), [] as [String; 0]);
        let lines = figures.lines();
        let first = "soak: memory_mib start=30.0 end=30.0 slope_per_hour=0.0 open_files start=20.0 end=20.0";
        assert!(lines.starts_with(first) && lines.contains("counted=1\n"), "{lines}");
        assert_eq!(figures.json()["replicas"]["open_files"]["end"], 20.0);
    }

    #[test]
    fn a_leak_of_one_file_per_minute_is_a_failure_and_a_small_increase_is_none() {
        let failures = soak(|_| 30.0, |at| 20.0 + (at / 60.0).floor()).failures();
        assert!(
            failures.len() == 2 && failures[0].contains("open files grow"),
            "{failures:?}"
        );
        assert!(failures[1].contains("tasks grow"), "{failures:?}");
        assert_eq!(
            soak(|_| 30.0, |at| if at < 900.0 { 20.0 } else { 26.0 }).failures(),
            [] as [String; 0]
        );
    }

    #[test]
    fn memory_may_grow_slowly_but_not_fast() {
        let failures = soak(|at| 30.0 + at / 60.0, |_| 20.0).failures();
        assert!(failures.len() == 1 && failures[0].contains("memory"), "{failures:?}");
        assert_eq!(soak(|at| 30.0 + at / 360.0, |_| 20.0).failures(), [] as [String; 0]);
    }

    #[test]
    fn the_status_file_of_a_process_is_parsed() {
        let status = "Name:\tpodlog\nVmHWM:\t   99 kB\nVmRSS:\t   2048 kB\nThreads:\t7\n";
        let read = ResourceUse::read(status, 3.0, None).unwrap();
        assert_eq!((read.memory, read.files, read.threads), (2.0 * MEBIBYTE, 3.0, 7.0));
        // A zombie has no memory.
        assert_eq!(ResourceUse::read("Threads:\t1\n", 0.0, None), None);
        assert_eq!(
            ResourceUse::measure(std::process::id(), None).is_some(),
            cfg!(target_os = "linux")
        );
    }
}
