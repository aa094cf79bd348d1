//! The timeline of an attempt: when each thing happened to it. Its gaps are segments, each of one layer.

use std::time::Duration;

use base::Time;
use smallvec::SmallVec;

/// When a request came: its connection, its head.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival {
    /// The connection was accepted. Long before the head, on one that is kept alive.
    pub accepted: Time,
    /// Its TLS handshake was done; zero without TLS.
    pub tls_done: Time,
    /// This request is the first of its connection, so that accept and handshake are part of its story.
    pub first: bool,
    /// The first byte of the head was there.
    pub head_began: Time,
    /// The head had been read.
    pub head_read: Time,
}

/// The moments of an attempt, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Stamp {
    Accepted,
    TlsAccepted,
    HeadBegan,
    HeadRead,
    PoliciesDone,
    PermitGot,
    EndpointChosen,
    Resolved,
    Connected,
    TlsConnected,
    RequestSent,
    FirstByte,
    FirstToken,
    LastByte,
    ClientDrained,
}

/// Stamps of one attempt; a stamp that did not happen (a connection that was reused) is absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timeline {
    stamps: [Time; Stamp::COUNT],
}

/// The gap that ends with a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    pub name: &'static str,
    pub layer: Layer,
    /// The stamp that ends it.
    pub stamp: Stamp,
    pub start: Time,
    pub length: Duration,
}

/// Whose time a segment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layer {
    Client,
    Gateway,
    Network,
    Upstream,
}

impl Stamp {
    pub const COUNT: usize = 15;
    pub const ALL: [Stamp; Stamp::COUNT] = [
        Stamp::Accepted,
        Stamp::TlsAccepted,
        Stamp::HeadBegan,
        Stamp::HeadRead,
        Stamp::PoliciesDone,
        Stamp::PermitGot,
        Stamp::EndpointChosen,
        Stamp::Resolved,
        Stamp::Connected,
        Stamp::TlsConnected,
        Stamp::RequestSent,
        Stamp::FirstByte,
        Stamp::FirstToken,
        Stamp::LastByte,
        Stamp::ClientDrained,
    ];
}

impl Stamp {
    /// The name of the gap that ends here, and whose time it is. `streamed` says that a first token came before.
    pub fn segment(self, streamed: bool) -> (&'static str, Layer) {
        match self {
            Stamp::Accepted | Stamp::HeadBegan => ("accept", Layer::Client),
            Stamp::TlsAccepted => ("tls", Layer::Client),
            Stamp::HeadRead => ("read head", Layer::Client),
            Stamp::PoliciesDone => ("policies", Layer::Gateway),
            Stamp::PermitGot => ("queue", Layer::Gateway),
            Stamp::EndpointChosen => ("choose", Layer::Gateway),
            Stamp::Resolved => ("resolve", Layer::Network),
            Stamp::Connected => ("connect", Layer::Network),
            Stamp::TlsConnected => ("tls upstream", Layer::Network),
            Stamp::RequestSent => ("send", Layer::Network),
            Stamp::FirstByte => ("upstream", Layer::Upstream),
            Stamp::FirstToken => ("first token", Layer::Upstream),
            Stamp::LastByte if streamed => ("stream", Layer::Upstream),
            Stamp::LastByte => ("receive", Layer::Upstream),
            Stamp::ClientDrained => ("drain", Layer::Client),
        }
    }
}

impl Timeline {
    /// What is known when a request's head has been read. On a connection that was kept alive, accept and
    /// handshake belong to an earlier request's story.
    pub fn from_arrival(arrival: &Arrival) -> Timeline {
        let mut timeline = Timeline::default();
        if arrival.first {
            timeline.mark(Stamp::Accepted, arrival.accepted);
            timeline.mark(Stamp::TlsAccepted, arrival.tls_done);
        }
        timeline.mark(Stamp::HeadBegan, arrival.head_began);
        timeline.mark(Stamp::HeadRead, arrival.head_read);
        timeline
    }

    pub fn mark(&mut self, stamp: Stamp, at: Time) {
        self.stamps[stamp as usize] = at;
    }

    /// Takes over what is stamped on another.
    pub fn mark_all(&mut self, other: &Timeline) {
        for (mine, theirs) in self.stamps.iter_mut().zip(other.stamps) {
            *mine = if theirs == Time::default() { *mine } else { theirs };
        }
    }

    pub fn at(&self, stamp: Stamp) -> Option<Time> {
        Some(self.stamps[stamp as usize]).filter(|at| *at != Time::default())
    }

    /// The stamps that happened, in their order.
    pub fn stamps(&self) -> impl Iterator<Item = (Stamp, Time)> + '_ {
        Stamp::ALL.into_iter().filter_map(|stamp| Some((stamp, self.at(stamp)?)))
    }

    /// The gaps between the stamps that happened. They do not overlap: a stamp that is earlier than one
    /// before it (an answer that began while the request was still being sent) ends a gap of length zero.
    pub fn segments(&self) -> impl Iterator<Item = Segment> {
        let streamed = self.at(Stamp::FirstToken).is_some();
        let mut segments = SmallVec::<[Segment; Stamp::COUNT]>::new();
        self.gaps(|stamp, start, length| {
            let (name, layer) = stamp.segment(streamed);
            segments.push(Segment { name, layer, stamp, start, length });
        });
        segments.into_iter()
    }

    /// The same for who only counts: each by the stamp that ends it, its start and its length.
    #[inline]
    pub fn gaps(&self, mut gap: impl FnMut(Stamp, Time, Duration)) {
        let mut previous = Time::default();
        for (stamp, at) in Stamp::ALL.into_iter().zip(self.stamps) {
            if at == Time::default() {
                continue;
            }
            let end = at.max(previous);
            if previous != Time::default() {
                gap(stamp, previous, end - previous);
            }
            previous = end;
        }
    }
}

impl Layer {
    /// Whose time a segment of that name is.
    pub fn of_segment(name: &str) -> Option<Layer> {
        let segments = Stamp::ALL.into_iter().flat_map(|stamp| [stamp.segment(false), stamp.segment(true)]);
        segments.into_iter().find(|(it, _)| *it == name).map(|(_, layer)| layer)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Layer::Client => "client",
            Layer::Gateway => "gateway",
            Layer::Network => "network",
            Layer::Upstream => "upstream",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    fn check(stamps: &[(Stamp, u64)], expected: &[(&str, u64)]) {
        let mut timeline = Timeline::default();
        for (stamp, nanos) in stamps {
            timeline.mark(*stamp, at(*nanos));
        }
        let segments: Vec<_> = timeline.segments().map(|s| (s.name, s.length.as_nanos() as u64)).collect();
        assert_eq!(segments, expected);
    }

    #[test]
    fn a_gap_is_named_by_the_stamp_that_ends_it() {
        use Stamp::*;
        check(&[], &[]);
        check(&[(HeadBegan, 5)], &[]);
        check(
            &[(HeadBegan, 5), (HeadRead, 7), (EndpointChosen, 8), (RequestSent, 10), (FirstByte, 30), (LastByte, 31)],
            &[("read head", 2), ("choose", 1), ("send", 2), ("upstream", 20), ("receive", 1)],
        );
        check(&[(FirstByte, 1), (FirstToken, 2), (LastByte, 9)], &[("first token", 1), ("stream", 7)]);
        // The answer began before the request was sent: nothing is counted twice.
        check(
            &[(Connected, 1), (RequestSent, 9), (FirstByte, 4), (LastByte, 10)],
            &[("send", 8), ("upstream", 0), ("receive", 1)],
        );
    }

    #[test]
    fn a_connection_kept_alive_leaves_its_accept_out() {
        let mut arrival =
            Arrival { accepted: at(1), tls_done: at(3), first: true, head_began: at(9), head_read: at(10) };
        let names = |arrival: &Arrival| Timeline::from_arrival(arrival).segments().map(|s| s.name).collect::<Vec<_>>();
        assert_eq!(names(&arrival), ["tls", "accept", "read head"]);
        arrival.first = false;
        assert_eq!(names(&arrival), ["read head"]);
    }
}
