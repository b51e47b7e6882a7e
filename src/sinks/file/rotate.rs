//! Rotating a full file: `x.jsonl` becomes `x.jsonl.1`, `.1` becomes `.2`, and so on; the oldest is deleted. Every step
//! is a rename, so a crash in between loses nothing.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tracing::warn;

/// Rotates the file at `path` and keeps at most `keep` rotated files.
pub(super) fn rotate(path: &Path, keep: u32, gzip: bool) -> io::Result<()> {
    if keep == 0 {
        return fs::remove_file(path);
    }
    for suffix in ["", ".gz"] {
        remove(&rotated(path, keep, suffix))?;
    }
    for number in (1..keep).rev() {
        for suffix in ["", ".gz"] {
            rename(&rotated(path, number, suffix), &rotated(path, number + 1, suffix))?;
        }
    }
    let first = rotated(path, 1, "");
    fs::rename(path, &first)?;
    if gzip && let Err(error) = compress(&first, &rotated(path, 1, ".gz")) {
        warn!(file = %first.display(), %error, "a rotated log file could not be compressed and stays uncompressed");
    }
    Ok(())
}

/// `x.jsonl.1.gz`
fn rotated(path: &Path, number: u32, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}{suffix}"));
    name.into()
}

fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path).or_else(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Ok(())
        } else {
            Err(error)
        }
    })
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).or_else(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Ok(())
        } else {
            Err(error)
        }
    })
}

/// Compresses under another name first, so that a file named `.gz` is always complete.
fn compress(from: &Path, to: &Path) -> io::Result<()> {
    let unfinished = to.with_extension("gz.tmp");
    let packed = || {
        let mut packed = GzEncoder::new(BufWriter::new(File::create(&unfinished)?), Compression::fast());
        io::copy(&mut BufReader::new(File::open(from)?), &mut packed)?;
        let mut file = packed.finish()?;
        file.flush()?;
        file.get_ref().sync_data()?;
        fs::rename(&unfinished, to)?;
        fs::remove_file(from)
    };
    let done = packed();
    if done.is_err() {
        // The rest is useless, and the uncompressed file still exists.
        fs::remove_file(&unfinished).ok();
    }
    done
}
