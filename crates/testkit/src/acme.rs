//! An authority that is not ours: Pebble, which asks every name that it issues a certificate for, over sockets.

use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use crate::dns::NameServer;
use crate::{Folder, eventually};

pub struct Pebble {
    folder: Folder,
    address: SocketAddr,
    management: SocketAddr,
    process: Child,
}

impl Pebble {
    /// One that finds names by this server and asks them at these ports, where it would be 80 and 443.
    pub fn start(names: &NameServer, http: u16, tls: u16, external_key: Option<(&str, &str)>) -> Pebble {
        let folder = Folder::new();
        folder.authority("ca").issue("pebble", &["127.0.0.1"]);
        let (address, management) = (free(), free());
        let keys = external_key.map(|(id, key)| format!("\"{id}\": \"{key}\"")).unwrap_or_default();
        let config = format!(
            "{{ \"pebble\": {{ \"listenAddress\": \"{address}\", \"managementListenAddress\": \"{management}\", \
             \"certificate\": \"{cert}\", \"privateKey\": \"{key}\", \"httpPort\": {http}, \"tlsPort\": {tls}, \
             \"externalAccountBindingRequired\": {external}, \"externalAccountMACKeys\": {{ {keys} }} }} }}",
            cert = folder.path("pebble.crt").display(),
            key = folder.path("pebble.key").display(),
            external = external_key.is_some(),
        );
        let config = folder.write("pebble.json", config);
        let mut command = Command::new("pebble");
        command.arg("-strict").arg("-config").arg(config).arg("-dnsserver").arg(names.address().to_string());
        // It does not wait before it asks, forgets what it has proved, and refuses some nonces, as authorities do; but
        // not so many that the three tries of a request are all refused now and then.
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0").env("PEBBLE_WFE_NONCEREJECT", "2");
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.expect("pebble; scripts/test-setup.sh installs it");
        let pebble = Pebble { folder, address, management, process };
        eventually("pebble is there", || std::net::TcpStream::connect(pebble.address).is_ok());
        eventually("its management is there", || std::net::TcpStream::connect(pebble.management).is_ok());
        pebble
    }

    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.address)
    }

    /// The authority of the certificate that it shows itself, a file.
    pub fn ca(&self) -> std::path::PathBuf {
        self.folder.path("ca.crt")
    }

    /// The authority of those that it issues: another one at each start.
    pub fn root(&self) -> String {
        let url = format!("https://{}/roots/0", self.management);
        let said = crate::curl(&["--cacert", self.ca().to_str().unwrap(), &url]);
        assert_eq!(said.answer.status, 200, "{said:?}");
        said.answer.text()
    }
}

impl Pebble {
    pub fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
