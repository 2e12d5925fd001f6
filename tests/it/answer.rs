//! Where answers come from, asked through the front as a validator would.

mod sources;
mod told;
mod upstream;
mod webroot;

use std::path::PathBuf;

/// An empty directory of this name, for one test alone.
pub fn directory(name: &str) -> PathBuf {
    let path =
        PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    path
}
