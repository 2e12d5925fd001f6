//! Directories that go with the test.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of its own, removed with everything in it.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// A new one. Its path is short, for sockets stand in it (unix(7): 108 octets).
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("acmegate-lab-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Self(path),
                // Left behind by a test of this pid that was killed, on another day.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it, as text.
    pub fn at(&self, name: &str) -> String {
        let path = self.0.join(name);
        path.to_str().expect("a path in UTF-8").to_owned()
    }

    /// Writes a file in it, and the directories that lead there; gives its path.
    pub fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        let parent = path.parent().expect("it is below this directory");
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, content))
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        self.at(name)
    }

    /// Writes a script in it that can be executed; gives its path.
    pub fn program(&self, name: &str, script: &str) -> String {
        let path = self.write(name, script);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("our own file");
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What is left behind is litter, and no reason to panic while panicking.
        let _ = fs::remove_dir_all(&self.0);
    }
}
