//! The connections of one listener: how many there are, whose they are, and which one makes room for another.
//!
//! A place is given at once or not at all. Where none is free, the longest unused connection is closed: of the client
//! whose share is used up, or of all. Only where every connection is answering a request does a newcomer get one of a
//! few spare places, on which health checks are answered and everything else is refused with 503.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    activity::{Activity, signal},
    drain::Drain,
};

/// Places beside the others, for health checks when all others are in use.
const SPARE: usize = 64;
/// Spare places that one client can take.
const SPARE_PER_CLIENT: usize = 16;
/// A 64th of the unused connections is closed at a time, so that finding the longest unused costs each newcomer little.
const EVICTED_PART: usize = 64;
/// Bits of an IPv6 address that name a client's network; the others are its own choice.
const IPV6_CLIENT_BITS: u32 = 64;

/// Connections that a listener has at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// All together.
    pub max: usize,
    /// Of one client address; of one /64 network for IPv6.
    pub per_client: usize,
    /// A connection on which no request begins for this long is closed.
    pub idle: Duration,
}

impl ConnectionLimits {
    /// Longer than the 90 seconds after which Go's clients, Grafana's among them, close idle connections themselves.
    pub const IDLE: Duration = Duration::from_secs(95);

    /// `max` connections, a quarter of them for one client.
    pub const fn of(max: usize) -> Self {
        Self { max, per_client: max.div_ceil(4), idle: Self::IDLE }
    }
}

/// Connections now and since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Open now.
    pub open: usize,
    /// The most that may be open.
    pub max: usize,
    /// Unused ones closed to make room.
    pub evicted: u64,
    /// Refused, because all were in use.
    pub refused: u64,
}

/// The connections of one listener.
#[derive(Debug)]
pub struct Connections {
    open: Mutex<Open>,
    evicted: AtomicU64,
    refused: AtomicU64,
    drain: Drain,
}

#[derive(Debug)]
struct Open {
    limits: ConnectionLimits,
    members: HashMap<u64, Member>,
    next: u64,
    taken: Taken,
    by_client: HashMap<IpAddr, Taken>,
    ending: bool,
}

#[derive(Debug)]
struct Member {
    client: IpAddr,
    kind: Kind,
    activity: Arc<Activity>,
}

/// Places taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Taken {
    full: usize,
    spare: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// For any request.
    Full,
    /// For health checks.
    Spare,
}

impl Taken {
    const fn of(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Full => &mut self.full,
            Kind::Spare => &mut self.spare,
        }
    }
}

/// One connection's place, given back by its drop.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    id: u64,
    pub(super) activity: Arc<Activity>,
    /// See [`ConnectionLimits::idle`].
    pub(super) idle: Duration,
    /// Whether it is a spare one, so that a request on any other takes no lock.
    spare: AtomicBool,
}

impl Connections {
    /// Places for connections, none of them taken.
    pub fn new(limits: ConnectionLimits) -> Arc<Self> {
        let open = Open {
            limits,
            members: HashMap::new(),
            next: 0,
            taken: Taken::default(),
            by_client: HashMap::new(),
            ending: false,
        };
        let (evicted, refused) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { open: Mutex::new(open), evicted, refused, drain: Drain::default() })
    }

    /// Obeys other limits from now on; connections beyond them stay until they are needed or end.
    pub fn set_limits(&self, limits: ConnectionLimits) {
        self.open.lock().limits = limits;
    }

    /// The number of connections now, and counts of evicted and refused ones.
    pub fn counts(&self) -> Counts {
        let open = self.open.lock();
        Counts {
            open: open.members.len(),
            max: open.limits.max,
            evicted: self.evicted.load(Relaxed),
            refused: self.refused.load(Relaxed),
        }
    }

    /// Says when the grace period of a shutdown is over.
    pub const fn drain(&self) -> &Drain {
        &self.drain
    }

    /// A place for a connection from `peer`; `None` where even the spare ones are taken, or the server ends.
    pub(super) fn admit(self: &Arc<Self>, peer: IpAddr) -> Option<Place> {
        let client = client_of(peer);
        let mut open = self.open.lock();
        let evicted = open.make_room(client, Kind::Full);
        let kind = if open.has_room(client, Kind::Full) { Kind::Full } else { Kind::Spare };
        let evicted = evicted + if kind == Kind::Spare { open.make_room(client, Kind::Spare) } else { 0 };
        self.evicted.fetch_add(evicted, Relaxed);
        if open.ending || !open.has_room(client, kind) {
            self.refused.fetch_add(1, Relaxed);
            return None;
        }
        let (id, activity, idle) = (open.next, Arc::new(Activity::new()), open.limits.idle);
        open.next += 1;
        open.insert(id, Member { client, kind, activity: Arc::clone(&activity) });
        drop(open);
        let spare = AtomicBool::new(kind == Kind::Spare);
        Some(Place { connections: Arc::clone(self), id, activity, idle, spare })
    }

    /// Asks the connections of now to end once their answers are sent.
    pub fn end_open(&self) {
        self.open.lock().end_members();
    }

    /// The same, and no other gets a place.
    pub(super) fn end(&self) {
        let mut open = self.open.lock();
        open.ending = true;
        open.end_members();
    }

    /// Has all requests that have no answer yet answered now; how many connections were answering.
    pub(super) fn expire(&self) -> usize {
        self.drain.expire();
        let open = self.open.lock();
        let under_way = open.members.values().filter(|member| member.activity.is_answering());
        let count = under_way.count();
        open.members.values().for_each(|member| member.activity.signal(signal::GRACE_OVER));
        count
    }
}

impl Open {
    fn end_members(&self) {
        self.members.values().for_each(|member| member.activity.signal(signal::END));
    }

    fn has_room(&self, client: IpAddr, kind: Kind) -> bool {
        let own = self.by_client.get(&client).copied().unwrap_or_default();
        let ConnectionLimits { max, per_client, .. } = self.limits;
        match kind {
            Kind::Full => self.taken.full < max && own.full < per_client,
            Kind::Spare => self.taken.spare < SPARE && own.spare < SPARE_PER_CLIENT,
        }
    }

    /// Closes the longest unused connections where there is no room for one more of this client; how many.
    fn make_room(&mut self, client: IpAddr, kind: Kind) -> u64 {
        if self.has_room(client, kind) {
            return 0;
        }
        let own = self.by_client.get(&client).copied().unwrap_or_default();
        let own_share_is_used = match kind {
            Kind::Full => own.full >= self.limits.per_client,
            Kind::Spare => own.spare >= SPARE_PER_CLIENT,
        };
        let members = self
            .members
            .iter()
            .filter(|(_, member)| member.kind == kind && (!own_share_is_used || member.client == client));
        let mut unused: Vec<(Instant, u64)> =
            members.filter_map(|(id, member)| Some((member.activity.unused_since()?, *id))).collect();
        let count = (unused.len() / EVICTED_PART).max(1).min(unused.len());
        if count < unused.len() {
            unused.select_nth_unstable(count);
        }
        for (_, id) in &unused[..count] {
            // Off the books at once; one that begins to answer in this moment ends after that answer.
            if let Some(member) = self.remove(*id) {
                member.activity.signal(signal::END);
            }
        }
        count as u64
    }

    fn insert(&mut self, id: u64, member: Member) {
        *self.taken.of(member.kind) += 1;
        *self.by_client.entry(member.client).or_default().of(member.kind) += 1;
        self.members.insert(id, member);
    }

    fn remove(&mut self, id: u64) -> Option<Member> {
        let member = self.members.remove(&id)?;
        *self.taken.of(member.kind) -= 1;
        if let Some(own) = self.by_client.get_mut(&member.client) {
            *own.of(member.kind) -= 1;
            if *own == Taken::default() {
                self.by_client.remove(&member.client);
            }
        }
        Some(member)
    }
}

impl Place {
    /// Whether it may be used for other requests than health checks: from the start, or because there is room now.
    pub(super) fn is_full(&self) -> bool {
        if !self.spare.load(Relaxed) {
            return true;
        }
        let mut open = self.connections.open.lock();
        // One that was closed to make room answers once more.
        let Some(client) = open.members.get(&self.id).map(|member| member.client) else { return true };
        let evicted = open.make_room(client, Kind::Full);
        self.connections.evicted.fetch_add(evicted, Relaxed);
        if !open.has_room(client, Kind::Full) {
            self.connections.refused.fetch_add(1, Relaxed);
            return false;
        }
        if let Some(member) = open.remove(self.id) {
            open.insert(self.id, Member { kind: Kind::Full, ..member });
        }
        self.spare.store(false, Relaxed);
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open.lock().remove(self.id);
    }
}

/// The address that a share of the connections belongs to.
fn client_of(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() & (u128::MAX << (u128::BITS - IPV6_CLIENT_BITS));
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn limited(max: usize, per_client: usize) -> Arc<Connections> {
        Connections::new(ConnectionLimits { per_client, ..ConnectionLimits::of(max) })
    }

    fn all_ask(places: &[Place]) {
        for place in places {
            place.activity.asked();
        }
    }

    fn is_asked_to_end(place: &Place) -> bool {
        place.activity.is_signalled(signal::END)
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_unused_makes_room_first_for_its_own_client() {
        let connections = limited(4, 2);
        let mut places = Vec::new();
        for client in [1, 1, 2, 3] {
            places.push(connections.admit(ip(client)).unwrap());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        // Its own share is used up: its own longest unused goes.
        places.push(connections.admit(ip(1)).unwrap());
        assert_eq!(
            places.iter().map(is_asked_to_end).collect::<Vec<_>>(),
            [true, false, false, false, false]
        );
        // All are in use: the longest unused of all goes, unless it is answering.
        places[1].activity.asked();
        places.push(connections.admit(ip(4)).unwrap());
        assert!(is_asked_to_end(&places[2]) && !is_asked_to_end(&places[1]));
        assert_eq!(connections.counts(), Counts { open: 4, max: 4, evicted: 2, refused: 0 });
        places.clear();
        assert_eq!(connections.counts().open, 0);
        assert!(connections.open.lock().by_client.is_empty());
    }

    #[tokio::test]
    async fn spare_places_are_for_health_until_there_is_room() {
        let connections = limited(2, 1);
        let mut busy: Vec<_> = [1, 2].map(|client| connections.admit(ip(client)).unwrap()).into();
        all_ask(&busy);
        let spare = connections.admit(ip(3)).unwrap();
        assert!(!spare.is_full() && busy[0].is_full());
        busy.pop();
        assert!(spare.is_full(), "there is room now");
        // One client takes its part of the spare places, and no more.
        busy.push(spare);
        all_ask(&busy);
        let mut own: Vec<_> = (0..SPARE_PER_CLIENT).map(|_| connections.admit(ip(4)).unwrap()).collect();
        all_ask(&own);
        assert!(connections.admit(ip(4)).is_none());
        assert!(connections.admit(ip(5)).is_some());
        own.clear();
        // Silent ones in spare places go as well.
        let silent: Vec<_> = (0..SPARE_PER_CLIENT).map(|_| connections.admit(ip(4)).unwrap()).collect();
        let last = connections.admit(ip(4)).unwrap();
        assert!(is_asked_to_end(&silent[0]) && !is_asked_to_end(&last));
    }

    #[tokio::test]
    async fn a_server_that_ends_gives_no_places_and_counts_the_answers_under_way() {
        let connections = limited(4, 4);
        let places: Vec<_> = (0..3).map(|_| connections.admit(ip(1)).unwrap()).collect();
        places[0].activity.asked();
        connections.end();
        assert!(places.iter().all(is_asked_to_end) && connections.admit(ip(1)).is_none());
        assert_eq!(connections.expire(), 1);
        assert!(places[0].activity.is_signalled(signal::GRACE_OVER));
        connections.drain().expired().await;
    }

    #[test]
    fn a_client_is_an_address_or_a_network() {
        let client = |text: &str| client_of(text.parse().unwrap()).to_string();
        assert_eq!(client("10.1.2.3"), "10.1.2.3");
        assert_eq!(client("::ffff:10.1.2.3"), "10.1.2.3");
        assert_eq!(client("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(client("::1"), "::");
    }
}
