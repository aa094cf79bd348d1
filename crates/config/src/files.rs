//! What a document refers to: files beside it and the environment, read in this one place.

use std::path::{Path, PathBuf};

use base::SecretRef;

pub trait Files {
    /// The content behind a reference, or why there is none.
    fn read(&self, reference: &SecretRef) -> Result<Vec<u8>, String>;

    /// A path of the document as the process may use it.
    fn resolve(&self, path: &str) -> PathBuf {
        path.into()
    }
}

/// The real files, relative to the document's folder, and the real environment.
pub struct Disk {
    pub base: PathBuf,
}

impl Disk {
    /// For the document at `path`; `-` stands for standard input and the current folder.
    pub fn beside(path: &Path) -> Disk {
        Disk { base: path.parent().map(Path::to_owned).unwrap_or_default() }
    }
}

impl Files for Disk {
    fn read(&self, reference: &SecretRef) -> Result<Vec<u8>, String> {
        match reference {
            SecretRef::Env(name) => std::env::var_os(name)
                .map(|value| value.into_encoded_bytes())
                .ok_or_else(|| format!("the environment has no variable `{name}`")),
            SecretRef::File(path) => {
                let path = self.resolve(path);
                std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
            }
        }
    }

    fn resolve(&self, path: &str) -> PathBuf {
        self.base.join(path)
    }
}
