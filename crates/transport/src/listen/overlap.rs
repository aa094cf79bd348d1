//! Addresses of which one includes the other, and sockets that make way.
//!
//! With `SO_REUSEPORT` the kernel lets a socket for all addresses and one for a single address be on the same port, and
//! gives a connection to the narrower one.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{SockFilter, Socket};

/// Sockets that make way, by inode, and since when. Only reloads look here.
static LEAVING: Mutex<Vec<(u64, Instant)>> = Mutex::new(Vec::new());
/// By then they are closed.
const LEFT: Duration = Duration::from_secs(10);

/// True if whoever connects to `narrow` comes to a socket bound to `wide`, should there be no other.
pub(super) fn covers(wide: SocketAddr, narrow: SocketAddr) -> bool {
    let (all, one) = (wide.ip(), narrow.ip());
    let includes = match all {
        // Ours are for both families.
        IpAddr::V6(all) => all.is_unspecified(),
        IpAddr::V4(all) => all.is_unspecified() && one.to_canonical().is_ipv4(),
    };
    wide.port() == narrow.port() && wide.port() != 0 && (includes || all.to_canonical() == one.to_canonical())
}

/// Fails where a socket listens, other than these and those that make way, that is bound to the address or shares it. Another
/// user's would be found by binding; another process of the same user may have let us in.
pub(super) fn ensure_ours<'a>(address: SocketAddr, ours: impl Iterator<Item = &'a Socket>) -> io::Result<()> {
    let mut ours: Vec<u64> = ours.map(inode).collect::<io::Result<_>>()?;
    let mut leaving = LEAVING.lock().unwrap_or_else(PoisonError::into_inner);
    leaving.retain(|(_, since)| since.elapsed() < LEFT);
    ours.extend(leaving.iter().map(|(inode, _)| inode));
    drop(leaving);
    let v4 = fs::read_to_string("/proc/self/net/tcp")?;
    // Not there in a kernel without IPv6.
    let v6 = fs::read_to_string("/proc/self/net/tcp6").unwrap_or_default();
    let listening = v4.lines().chain(v6.lines()).filter_map(listening);
    let mut others = listening.filter(|(_, inode)| !ours.contains(inode));
    match others.any(|(other, _)| covers(address, other) || covers(other, address)) {
        true => Err(io::ErrorKind::AddrInUse.into()),
        false => Ok(()),
    }
}

/// Address and inode of a socket that listens, of a line as `proc_pid_net(5)` describes it.
fn listening(line: &str) -> Option<(SocketAddr, u64)> {
    const LISTEN: &str = "0A";
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (ip, port) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?.parse().ok()?;
    // Words of 32 bits, each as a number of this machine.
    let word = |at: usize| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.as_flattened()).ok()?))
        }
        _ => return None,
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    (state == LISTEN).then_some((SocketAddr::new(ip, port), inode))
}

fn inode(socket: &Socket) -> io::Result<u64> {
    Ok(File::from(OwnedFd::from(socket.try_clone()?)).metadata()?.ino())
}

/// A socket that listens takes up nobody any more. Who has begun to connect goes on; to who begins it is as if the packet
/// was lost.
pub(super) fn refuse_new(socket: &Socket) -> io::Result<()> {
    const LOAD_BYTE: u16 = 0x30;
    const IF_BITS: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const FLAGS_OF_TCP: u32 = 13;
    const SYN: u32 = 0x02;
    let inode = inode(socket)?;
    // In the header of TCP, where the packet begins for such a filter.
    socket.attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_OF_TCP),
        SockFilter::new(IF_BITS, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])?;
    LEAVING.lock().unwrap_or_else(PoisonError::into_inner).push((inode, Instant::now()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_address_covers_a_narrower_one() {
        let check = |wide: &str, narrow: &str, expected: bool| {
            assert_eq!(covers(wide.parse().unwrap(), narrow.parse().unwrap()), expected, "{wide} {narrow}");
        };
        check("0.0.0.0:80", "127.0.0.1:80", true);
        check("127.0.0.1:80", "127.0.0.1:80", true);
        check("127.0.0.1:80", "0.0.0.0:80", false);
        check("127.0.0.1:80", "127.0.0.2:80", false);
        check("0.0.0.0:80", "127.0.0.1:81", false);
        check("[::]:80", "0.0.0.0:80", true);
        check("[::]:80", "[::1]:80", true);
        check("0.0.0.0:80", "[::]:80", false);
        check("0.0.0.0:80", "[::1]:80", false);
        check("0.0.0.0:80", "[::ffff:127.0.0.1]:80", true);
        check("0.0.0.0:0", "127.0.0.1:0", false);
    }

    #[test]
    fn the_kernel_s_list_is_understood() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = std::net::TcpListener::bind(address) else { continue };
            let bound = socket.local_addr().unwrap();
            let socket = Socket::from(socket);
            assert_eq!(ensure_ours(bound, [].iter()).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            ensure_ours(bound, [&socket].into_iter()).unwrap();
        }
    }
}
