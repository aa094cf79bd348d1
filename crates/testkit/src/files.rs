//! Certificates of an authority made for one test, on disk because curl wants them there.

use std::path::{Path, PathBuf};

use config::Disk;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

/// A document's folder, gone with this.
pub struct Folder(tempfile::TempDir);

impl Folder {
    #[expect(clippy::new_without_default, reason = "making a folder is not a default")]
    pub fn new() -> Folder {
        Folder(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    pub fn base(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn disk(&self) -> Disk {
        Disk { base: self.0.path().to_owned() }
    }

    /// An authority whose certificate is `NAME.crt`.
    pub fn authority(&self, name: &str) -> Authority<'_> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        self.write(&format!("{name}.crt"), issuer.pem());
        Authority { folder: self, issuer }
    }
}

pub struct Authority<'a> {
    folder: &'a Folder,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority<'_> {
    /// `FILE.crt` and `FILE.key`, for these hosts, addresses or URIs.
    pub fn issue(&self, file: &str, names: &[&str]) {
        self.issue_for(file, names, (1975, 4096));
    }

    /// Valid from the beginning of one year to that of another.
    pub fn issue_for(&self, file: &str, names: &[&str], (from, until): (i32, i32)) {
        let (uris, names): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
        let names: Vec<_> = names.into_iter().map(str::to_owned).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.subject_alt_names.extend(uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap())));
        params.distinguished_name.push(DnType::CommonName, file);
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.folder.write(&format!("{file}.crt"), certificate.pem());
        self.folder.write(&format!("{file}.key"), key.serialize_pem());
    }
}
