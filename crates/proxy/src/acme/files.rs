//! What is kept in the data folder: the account at each authority, and each certificate with its key in one file, so that
//! the two always belong together.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

/// `acme/AUTHORITY/account.json`.
pub fn account(wanted: &config::Acme) -> PathBuf {
    folder(wanted).join("account.json")
}

/// `acme/AUTHORITY/DOMAIN-….pem`.
pub fn certificate(wanted: &config::Acme) -> PathBuf {
    let first = wanted.domains.first().map_or("", String::as_str);
    folder(wanted).join(format!("{first}-{}.pem", short(&wanted.domains.join(" "))))
}

/// The whole file; `None` if there is none.
pub fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

/// Either the old content is there or the new one, whenever it is that the machine stops; for its owner alone.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let told = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let folder = path.parent().ok_or_else(|| io::Error::other("a file has a folder"))?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(told)?;
    let aside = path.with_extension(format!("new-{}", std::process::id()));
    let write = || {
        let _ = fs::remove_file(&aside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(told)
}

fn folder(wanted: &config::Acme) -> PathBuf {
    let directory = &wanted.directory;
    let host = directory.split("://").nth(1).unwrap_or_default().split(['/', ':']).next().unwrap_or_default();
    wanted.data.join("acme").join(format!("{host}-{}", short(directory)))
}

/// A few digits that stand for a text which may not be a file's name.
fn short(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_written_whole_and_for_its_owner() {
        let folder = std::env::temp_dir().join(format!("weir-acme-files-{}", std::process::id()));
        let path = folder.join("a").join("x.pem");
        assert!(read(&path).unwrap().is_none());
        for content in ["one", "two"] {
            write(&path, content.as_bytes()).unwrap();
            assert_eq!(read(&path).unwrap().unwrap(), content.as_bytes());
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left aside");
        fs::remove_dir_all(folder).unwrap();
    }
}
