//! What the transfer tool promises: a file arrives whole or not at all, and both sides are told.

use std::error::Error;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use turbopump_engine::transfer::{Keys, Progress, TransferError, send, serve};
use turbopump_udt::{Config, PresharedKey, PrivateKey};

type Failure = Box<dyn Error + Send + Sync>;

/// A directory of the test's own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new() -> std::io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("turbopump-transfer-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path)?;
        Ok(Folder(path))
    }

    fn file(&self, name: &str, size: usize) -> std::io::Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, (0..size).map(|i| (i * 7 / 3) as u8).collect::<Vec<u8>>())?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in the system's directory for such things harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn keys(mine: u8, theirs: u8, shared: u8) -> Keys {
    let key = |byte: u8| PrivateKey::new([byte; 32]);
    Keys { private: key(mine), peer: key(theirs).public(), shared: PresharedKey::new([shared; 32]) }
}

/// Runs `with` beside a server into `folder`, which ends with it.
fn beside<R>(folder: &Path, with: impl FnOnce(SocketAddr) -> R) -> Result<R, Failure> {
    let stopped = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        let stopped = &stopped;
        let server = scope.spawn(move || {
            let mut bound = |address| {
                let _ = sender.send(address); // the test waits for it, or has failed already
            };
            let mut watch = |_: &Progress| !stopped.load(Ordering::Relaxed);
            let any = ([127, 0, 0, 1], 0).into();
            serve(&keys(2, 1, 9), any, folder, Config::default(), &mut bound, &mut watch)
        });
        let result = receiver.recv_timeout(Duration::from_secs(10)).map(with);
        stopped.store(true, Ordering::Relaxed);
        server.join().map_err(|_| "the server panicked")??;
        Ok(result?)
    })
}

fn sent(to: SocketAddr, path: &Path) -> Result<Progress, TransferError> {
    send(&keys(1, 2, 9), to, path, Config::default(), &mut |_| true)
}

#[test]
fn files_arrive_as_they_were() -> Result<(), Failure> {
    let (from, into) = (Folder::new()?, Folder::new()?);
    let sizes = [0, 1, 100, 16_000, 20_000, 1 << 20, 30_000_001];
    beside(&into.0, |to| {
        for size in sizes {
            let path = from.file(&format!("file {size}"), size)?;
            let progress = sent(to, &path)?;
            assert_eq!((progress.bytes, progress.done), (size as u64, true));
            assert!(fs::read(&path)? == fs::read(into.0.join(format!("file {size}")))?, "{size}");
        }
        Ok::<(), Failure>(())
    })??;
    assert_eq!(fs::read_dir(&into.0)?.count(), sizes.len(), "nothing else is left");
    Ok(())
}

#[test]
fn nothing_is_overwritten_and_nothing_leaves_the_directory() -> Result<(), Failure> {
    let (from, into) = (Folder::new()?, Folder::new()?);
    let path = from.file("twice", 1_000_000)?;
    fs::write(into.0.join("twice"), "before")?;
    beside(&into.0, |to| {
        let refused = sent(to, &path).map(|progress| progress.bytes).unwrap_err().to_string();
        assert!(refused.contains("there is a twice already"), "{refused}");
        let hidden = from.file(".hidden", 1)?;
        assert!(matches!(sent(to, &hidden), Err(TransferError::Name(_))));
        assert!(matches!(sent(to, Path::new("/none")), Err(TransferError::System(..))));
        Ok::<(), Failure>(())
    })??;
    assert_eq!(fs::read(into.0.join("twice"))?, b"before");
    assert_eq!(fs::read_dir(&into.0)?.count(), 1);
    Ok(())
}

#[test]
fn who_has_not_the_keys_is_not_answered() -> Result<(), Failure> {
    let (from, into) = (Folder::new()?, Folder::new()?);
    let path = from.file("file", 10)?;
    let config = Config { handshake_max: Duration::from_secs(1), ..Config::default() };
    beside(&into.0, |to| {
        for wrong in [keys(3, 2, 9), keys(1, 2, 8), keys(1, 4, 9)] {
            let error = send(&wrong, to, &path, config.clone(), &mut |_| true).err();
            assert!(matches!(error, Some(TransferError::Closed(_))), "{error:?}");
        }
    })?;
    assert_eq!(fs::read_dir(&into.0)?.count(), 0);
    Ok(())
}

#[test]
fn half_a_file_is_no_file() -> Result<(), Failure> {
    let (from, into) = (Folder::new()?, Folder::new()?);
    // As long as a file can be, and no bytes of it on the disk.
    let path = from.file("large", 0)?;
    fs::File::options().write(true).open(&path)?.set_len(1 << 40)?;
    beside(&into.0, |to| {
        let stopped = send(&keys(1, 2, 9), to, &path, Config::default(), &mut |_| false);
        assert!(matches!(stopped, Err(TransferError::Stopped)));
        // The next one is served as if nothing had been.
        sent(to, &from.file("small", 10)?)?;
        Ok::<(), Failure>(())
    })??;
    assert_eq!(fs::read_dir(&into.0)?.count(), 1);
    Ok(())
}
