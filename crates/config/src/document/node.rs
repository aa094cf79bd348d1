//! The node as a whole: what it keeps, where it counts with others, who operates it.

use base::{SecretRef, Size, Span};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{ListenerTls, OrNone};

section! {
    /// What concerns the process as a whole.
    Node {
        /// Worker threads; one a core unless given.
        workers: Option<usize>,
        /// How long calls may go on after the process was told to stop. Default: `30s`.
        drain: Option<Span>,
        /// How long calls may go on in a process whose place was taken by another; or `none`. Default: `1h`.
        retire: Option<OrNone>,
        /// Where this node stands: endpoints of the same zone are preferred.
        zone: Option<String>,
        /// Connections of clients open at once, on all listeners; who comes then waits in the kernel's queue until
        /// another has gone. Default: three quarters of the open files that the process may have.
        connections: Option<u32>,
        /// Where the answers lie that the policy `cache` keeps.
        cache: Cache,
        /// How names are resolved.
        dns: Dns,
        /// The folder for what the node keeps over a restart, such as certificates that were issued to it. It is made if
        /// need be; relative to the document.
        data: Option<String>,
    }
}

section! {
    /// How names are resolved: of upstreams, and of whoever else the node calls. `/etc/hosts` goes before name servers.
    Dns {
        /// Name servers, such as `127.0.0.1:8600`; port 53 unless given. Default: those of `/etc/resolv.conf`, as it was
        /// at the start.
        servers: Vec<String>,
        /// How long the last answer is used beyond its time to live while no server answers; or `none` for ever.
        /// Default: `1d`.
        stale: Option<OrNone>,
        /// How long it is used once a server says that there is nothing by the name. Default: `30s`.
        gone: Option<Span>,
    }
}

section! {
    /// Where the answers lie that the policy `cache` keeps.
    Cache {
        /// Memory for them, shared by all workers. Default: `64MiB`.
        memory: Option<Size>,
        /// They are on a disk too, where they outlive the process: in the folder `cache` of `node.data`. Only in memory
        /// unless given.
        disk: Option<CacheDisk>,
    }
}

section! {
    /// The disk for the answers that the policy `cache` keeps.
    CacheDisk {
        /// How much of it they may take, at least `1MiB`. Default: `1GiB`.
        size: Option<Size>,
    }
}

section! {
    /// A Redis or Valkey that nodes share. One server, or one that a proxy or a name leads to; not a cluster.
    SharedStore {
        /// `redis://10.0.0.1:6379`, `rediss://store.internal:6380/2`: with `rediss` over TLS, at the end the number of the
        /// database.
        url: Option<String>,
        /// Of the store's access lists.
        user: Option<String>,
        /// What the store is shown.
        password: Option<SecretRef>,
        /// Whom to trust over TLS, in PEM; the system's authorities if it is not given.
        authorities: Option<SecretRef>,
        /// How long a question may take, and so a call may have to wait for it. Default: `50ms`.
        timeout: Option<Span>,
        /// How many nodes share it, until it has told how many there are. Default: 1.
        nodes: Option<u32>,
    }
}

section! {
    /// Where the node is operated: `weir top`, `weir reload` and the admin API.
    Admin {
        /// `unix:weir-admin.sock`, `127.0.0.1:9901` or `none`. Default: a socket that only the node's own user may
        /// open, in a folder where the commands look for it. Changes with the next start.
        address: Option<String>,
        /// What `Authorization: Bearer` must carry; at least 16 bytes. An IP address needs one, a socket does not.
        token: Option<SecretRef>,
        /// Names by which an IP address may be called, beside `localhost` and addresses.
        hosts: Vec<String>,
        /// Speak TLS at an IP address. As a listener's, but without `acme`; a certificate of a client does not spare it
        /// the token.
        tls: Option<ListenerTls>,
    }
}
