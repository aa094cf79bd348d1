//! A name server that is not ours: Knot DNS, authoritative for `test.`, told what to say by its zone file.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::{Folder, eventually};

pub struct NameServer {
    folder: Folder,
    address: SocketAddr,
    serial: u32,
    process: Option<Child>,
}

impl NameServer {
    /// With these records, in the words of a zone file: `a 60 A 127.0.0.1`.
    pub fn start(records: &str) -> NameServer {
        let folder = Folder::new();
        let address = free_port();
        let base = folder.base().display();
        folder.write(
            "knot.conf",
            format!(
                "server:\n    rundir: {base}\n    listen: {}@{}\n    udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n\
                 database:\n    storage: {base}/db\n\
                 zone:\n  - domain: test\n    file: {base}/test.zone\n    journal-content: none\n    zonefile-load: whole\n    zonefile-sync: -1\n",
                address.ip(),
                address.port()
            ),
        );
        let mut server = NameServer { folder, address, serial: 0, process: None };
        server.write(records);
        server.run();
        server
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// It has these records from now on.
    pub fn say(&mut self, records: &str) {
        self.write(records);
        let process = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-HUP", &process]).status().unwrap().success());
        let serial = self.serial;
        eventually("the new zone is served", || self.serial_served() == Some(serial));
    }

    /// It is gone; who asks gets no answer.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// It is there again, with these records.
    pub fn come_back(&mut self, records: &str) {
        self.stop();
        self.write(records);
        self.run();
    }

    /// It is there and answers SERVFAIL: it has lost its zone.
    pub fn fail(&mut self) {
        self.stop();
        std::fs::remove_file(self.folder.path("test.zone")).unwrap();
        self.spawn();
        eventually("it fails", || self.ask().is_some_and(|answer| answer[3] & 15 == 2));
    }

    fn run(&mut self) {
        self.spawn();
        let serial = self.serial;
        eventually("the name server answers", || self.serial_served() == Some(serial));
    }

    fn spawn(&mut self) {
        let mut command = Command::new("/usr/sbin/knotd");
        command.arg("-c").arg(self.folder.path("knot.conf")).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("knotd; scripts/test-setup.sh installs it"));
    }

    fn write(&mut self, records: &str) {
        self.serial += 1;
        let zone = format!("@ 1 SOA ns. admin. {} 3600 600 86400 1\n@ 1 NS ns.\n{records}\n", self.serial);
        self.folder.write("test.zone", zone);
    }

    /// The serial number of the zone it answers from.
    fn serial_served(&self) -> Option<u32> {
        let answer = self.ask()?;
        // The record ends with serial, refresh, retry, expire, minimum; of the answer, and of nothing after it.
        let answered = answer[3] & 15 == 0 && answer[7] == 1 && answer[9] == 0;
        let at = answer.len().checked_sub(20).filter(|_| answered)?;
        Some(u32::from_be_bytes(answer[at..at + 4].try_into().unwrap()))
    }

    /// What it answers to a question for the SOA of its zone.
    fn ask(&self) -> Option<Vec<u8>> {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        socket.connect(self.address).unwrap();
        socket.send(b"\0\x07\0\0\0\x01\0\0\0\0\0\0\x04test\0\0\x06\0\x01").ok()?;
        let mut packet = [0; 512];
        let length = socket.recv(&mut packet).ok().filter(|length| *length > 12)?;
        Some(packet[..length].to_vec())
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One that is free for both; nobody keeps it so, which has to do.
fn free_port() -> SocketAddr {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = tcp.local_addr().unwrap();
        if UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}
