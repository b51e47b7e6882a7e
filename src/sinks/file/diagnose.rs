//! Looking at the directory of a file sink: whether files can be made there, and how much room there is.

use std::io;
use std::path::{Path, PathBuf};

use tokio::time::timeout;

use super::{failure, try_out};
use crate::domain::{Cause, Finding, Message};
use crate::sinks::diagnose::{DEADLINE, WRITING};
use crate::sinks::url::FileOptions;

/// Below this the disk will soon be full, bytes: ten files of the usual size.
const LITTLE: u64 = 100 << 20;

/// Looks at everything. A directory that is not there is not made.
pub(in crate::sinks) async fn diagnose(options: &FileOptions) -> Vec<Finding> {
    let dir = options.dir.clone();
    let looking = tokio::task::spawn_blocking(move || diagnose_dir(&dir));
    match timeout(DEADLINE, looking).await {
        Ok(Ok(findings)) => findings,
        Ok(Err(error)) => vec![Finding::failed(Cause::Machine, WRITING, error.to_string(), "")],
        Err(_) => vec![Finding::failed(
            Cause::Unreachable,
            WRITING,
            format!("{} did not answer within {DEADLINE:?}", options.dir.display()),
            "look whether its file system hangs",
        )],
    }
}

fn diagnose_dir(dir: &Path) -> Vec<Finding> {
    let there = nearest(dir);
    let mut findings = Vec::new();
    if there == dir {
        findings.push(Finding::ok("directory", format!("{} exists", dir.display())));
    } else {
        findings.push(Finding::warning(
            "directory",
            format!("{} does not exist; `podlog run` would make it", dir.display()),
            "make it beforehand, or correct --sink, should that be unexpected",
        ));
    }
    findings.push(match try_out(&there) {
        Ok(()) => Finding::ok(WRITING, format!("a file was made in {} and removed", there.display())),
        Err(error) => {
            let Message { text, remedy } = failure(&there, &error);
            let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            let cause = if full { Cause::Unreachable } else { Cause::Refused };
            Finding::failed(cause, WRITING, text, remedy)
        }
    });
    findings.push(match rustix::fs::statvfs(&there) {
        Ok(disk) => room(disk.f_bavail.saturating_mul(disk.f_frsize)),
        Err(error) => Finding::warning("free space", format!("cannot be asked: {error}"), ""),
    });
    findings
}

fn room(free: u64) -> Finding {
    let found = format!("{} MiB", free >> 20);
    if free < LITTLE {
        return Finding::warning("free space", found, "free some, or lower max_size and keep in --sink");
    }
    Finding::ok("free space", found)
}

/// The directory, or the nearest one above it that exists.
fn nearest(dir: &Path) -> PathBuf {
    dir.ancestors()
        .find(|one| one.exists())
        .unwrap_or(Path::new("/"))
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Outcome;

    #[test]
    fn looking_leaves_nothing_behind_and_makes_no_directory() {
        let root = tempfile::tempdir().unwrap();
        let outcomes = |dir: &Path| {
            diagnose_dir(dir)
                .iter()
                .map(|finding| finding.outcome)
                .collect::<Vec<_>>()
        };
        assert_eq!(outcomes(root.path())[..2], [Outcome::Ok, Outcome::Ok]);
        assert_eq!(outcomes(&root.path().join("a/b"))[..2], [Outcome::Warning, Outcome::Ok]);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
        let file = root.path().join("file");
        std::fs::write(&file, "").unwrap();
        let findings = diagnose_dir(&file.join("logs"));
        assert!(
            findings[1].has_failed() && !findings[1].message.remedy.is_empty(),
            "{findings:?}"
        );
    }

    #[test]
    fn a_disk_that_is_nearly_full_is_warned_about() {
        assert_eq!(room(LITTLE).outcome, Outcome::Ok);
        assert_eq!(room(LITTLE - 1).outcome, Outcome::Warning);
    }
}
