//! The floor: what the kernel alone asks of a proxy here. It copies bytes between a client's connection and one of its
//! own to the origin, and looks at none of them: two reads and two writes a request, on one thread.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};

use anyhow::Result;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;

use crate::procs::raise_descriptors;

#[derive(clap::Args)]
pub struct Arguments {
    #[arg(long)]
    port: u16,
    /// The origin's.
    #[arg(long)]
    to: u16,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    raise_descriptors()?;
    let listener = TcpListener::bind(("127.0.0.1", arguments.port))?;
    listener.set_nonblocking(true)?;
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    watch(&poll, &listener)?;
    let mut connections: HashMap<RawFd, Side> = HashMap::new();
    let mut events = Vec::with_capacity(512);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), None)?;
        for event in &events {
            let descriptor = event.data.u64() as RawFd;
            if descriptor == listener.as_raw_fd() {
                accept(&poll, &listener, arguments.to, &mut connections)?;
            } else if connections.get_mut(&descriptor).is_some_and(|side| !side.pass(&mut buffer)) {
                close(&mut connections, descriptor);
            }
        }
    }
}

/// One end of a pair, and a handle of the other.
struct Side {
    from: TcpStream,
    to: TcpStream,
    other: RawFd,
}

impl Side {
    /// Whether the pair lives on.
    fn pass(&mut self, buffer: &mut [u8]) -> bool {
        match self.from.read(buffer) {
            Ok(0) => false,
            // What does not fit a socket's buffer is not this tool's business: the cases are small.
            Ok(length) => self.to.write_all(&buffer[..length]).is_ok(),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        }
    }
}

fn accept(poll: &OwnedFd, listener: &TcpListener, to: u16, connections: &mut HashMap<RawFd, Side>) -> Result<()> {
    loop {
        let client = match listener.accept() {
            Ok((client, _)) => client,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let origin = TcpStream::connect(("127.0.0.1", to))?;
        for stream in [&client, &origin] {
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            watch(poll, stream)?;
        }
        let (one, other) = (client.as_raw_fd(), origin.as_raw_fd());
        let (to_client, to_origin) = (client.try_clone()?, origin.try_clone()?);
        connections.insert(one, Side { from: client, to: to_origin, other });
        connections.insert(other, Side { from: origin, to: to_client, other: one });
    }
}

fn watch(poll: &OwnedFd, what: &(impl AsRawFd + AsFd)) -> Result<()> {
    let data = EventData::new_u64(what.as_raw_fd() as u64);
    Ok(epoll::add(poll, what, data, EventFlags::IN)?)
}

fn close(connections: &mut HashMap<RawFd, Side>, descriptor: RawFd) {
    if let Some(side) = connections.remove(&descriptor) {
        connections.remove(&side.other);
    }
}
