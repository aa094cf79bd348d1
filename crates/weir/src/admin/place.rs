//! Where the sockets are by which nodes of this machine are operated: `<folder>/<process>.sock`. A node makes its
//! own, the commands look for those there are.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where a node of this process is to listen.
pub fn own() -> Result<PathBuf, String> {
    let folder = folders().into_iter().next().unwrap_or_else(fallback);
    prepare(&folder)?;
    Ok(folder.join(format!("{}.sock", std::process::id())))
}

/// The sockets that are there, whether or not somebody answers.
pub fn found() -> Vec<PathBuf> {
    let mut folders = folders();
    for folder in [PathBuf::from(SYSTEM), fallback()] {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    let entries = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let mut sockets: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sock"))
        .collect();
    sockets.sort();
    sockets
}

/// The folders a node may have to itself, best first: what systemd made for the service, the user's own, root's.
fn folders() -> Vec<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut folders = Vec::new();
    folders.extend(set("RUNTIME_DIRECTORY"));
    folders.extend(set("XDG_RUNTIME_DIR").map(|folder| folder.join("weir")));
    if rustix::process::getuid().is_root() {
        folders.push(SYSTEM.into());
    }
    folders
}

fn fallback() -> PathBuf {
    PathBuf::from(format!("/tmp/weir-{}", rustix::process::getuid().as_raw()))
}

/// The folder is ours and nobody else may enter: in one that others can write to, a socket could be put in place of
/// ours.
fn prepare(folder: &Path) -> Result<(), String> {
    let shown = folder.display();
    if let Err(error) = DirBuilder::new().recursive(true).mode(0o700).create(folder) {
        return Err(format!("cannot make {shown}: {error}"));
    }
    let found = fs::symlink_metadata(folder).map_err(|error| format!("cannot look at {shown}: {error}"))?;
    if !found.is_dir() || found.uid() != rustix::process::getuid().as_raw() {
        return Err(format!("{shown} belongs to somebody else"));
    }
    if found.mode() & 0o022 != 0 {
        return Err(format!("others may write to {shown}; expected mode 0700"));
    }
    Ok(())
}

const SYSTEM: &str = "/run/weir";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_that_others_may_write_to_is_none_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("run/weir");
        prepare(&own).unwrap();
        assert_eq!(fs::metadata(&own).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(prepare(&own).unwrap_err().contains("0700"));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert!(prepare(&link).is_err());
    }
}
