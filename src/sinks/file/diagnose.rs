//! What `podlog check` finds out about the directory of a file sink: whether files can be created there, and how much
//! space is free.

use std::path::{Path, PathBuf};

use tokio::time::timeout;

use super::directory::{FileOptions, explain, is_full, try_to_create_file};
use crate::db::diagnose::{DEADLINE, WRITING};
use crate::domain::{Cause, Finding, Message};

/// Free space below which the disk is full soon, bytes: ten files of the usual size.
const LITTLE_SPACE: u64 = 100 << 20;

/// Checks everything. A directory that does not exist is not created.
pub(in crate::sinks) async fn diagnose(options: &FileOptions) -> Vec<Finding> {
    let dir = options.dir.clone();
    let checking = tokio::task::spawn_blocking(move || diagnose_dir(&dir));
    match timeout(DEADLINE, checking).await {
        Ok(Ok(findings)) => findings,
        Ok(Err(error)) => vec![Finding::failed(Cause::Machine, WRITING, error.to_string(), "")],
        Err(_) => vec![Finding::failed(
            Cause::Unreachable,
            WRITING,
            format!("{} did not answer within {DEADLINE:?}", options.dir.display()),
            "check whether its file system hangs",
        )],
    }
}

fn diagnose_dir(dir: &Path) -> Vec<Finding> {
    let existing = nearest(dir);
    let mut findings = Vec::new();
    if existing == dir {
        findings.push(Finding::ok("directory", format!("{} exists", dir.display())));
    } else {
        findings.push(Finding::warning(
            "directory",
            format!("{} does not exist; `podlog run` creates it", dir.display()),
            "create it before, or correct --sink if this is unexpected",
        ));
    }
    findings.push(match try_to_create_file(&existing) {
        Ok(()) => Finding::ok(
            WRITING,
            format!("a file was created in {} and removed", existing.display()),
        ),
        Err(error) => {
            let Message { text, remedy } = explain(&existing, &error);
            let cause = if is_full(&error) {
                Cause::Unreachable
            } else {
                Cause::Refused
            };
            Finding::failed(cause, WRITING, text, remedy)
        }
    });
    findings.push(match rustix::fs::statvfs(&existing) {
        Ok(disk) => free_space(disk.f_bavail.saturating_mul(disk.f_frsize)),
        Err(error) => Finding::warning("free space", format!("cannot be determined: {error}"), ""),
    });
    findings
}

fn free_space(free: u64) -> Finding {
    let found = format!("{} MiB", free >> 20);
    if free < LITTLE_SPACE {
        return Finding::warning(
            "free space",
            found,
            "free some space, or lower max_size and keep in --sink",
        );
    }
    Finding::ok("free space", found)
}

/// The directory, or the nearest one above it that exists.
fn nearest(dir: &Path) -> PathBuf {
    // Above the first part of a relative path is the working directory, whose path here is empty.
    let mut paths = dir
        .ancestors()
        .map(|one| if one == Path::new("") { Path::new(".") } else { one });
    paths.find(|one| one.exists()).unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Outcome;

    #[test]
    fn diagnosing_leaves_nothing_behind_and_creates_no_directory() {
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
    fn the_nearest_directory_of_a_relative_path_is_in_the_working_directory() {
        for (dir, existing) in [
            ("nowhere/logs", "."),
            ("src/nowhere/logs", "src"),
            ("src", "src"),
            ("/nowhere", "/"),
        ] {
            assert_eq!(nearest(Path::new(dir)), Path::new(existing), "{dir}");
        }
    }

    #[test]
    fn a_nearly_full_disk_gives_a_warning() {
        assert_eq!(free_space(LITTLE_SPACE).outcome, Outcome::Ok);
        assert_eq!(free_space(LITTLE_SPACE - 1).outcome, Outcome::Warning);
    }
}
