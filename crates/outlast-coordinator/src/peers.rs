//! Connections of each address. An address has a share of them; where all are taken, a connection that has
//! shown no key makes room for one from an address that holds fewer.

use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Time that a connection without a key is left alone although its address wants another one.
const CHANCE: Duration = Duration::from_secs(5);

/// Limits of connections.
#[derive(Debug, Clone, Default)]
pub struct ConnectionConfig {
    /// Connections of one address (of IPv6: of one /64) at most; none: half of all that there can
    /// be. 0: no such limit. It does not hold for loopback addresses.
    pub per_address: Option<usize>,
    /// Addresses of proxies that many peers come through: the limit does not hold for these.
    pub proxies: Vec<IpAddr>,
}

/// The addresses that count as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Group(IpAddr);

impl Group {
    /// The group of an address: whoever has one address of IPv6 has 2⁶⁴ of them, mostly.
    pub fn of(ip: IpAddr) -> Group {
        match ip.to_canonical() {
            IpAddr::V6(v6) => Group(IpAddr::V6((u128::from(v6) & (!0 << 64)).into())),
            v4 => Group(v4),
        }
    }
}

/// The connections that are open, by address.
pub(crate) struct Peers {
    most: usize,
    share: usize,
    exempt: Vec<IpAddr>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: usize,
    next: u64,
    of: HashMap<Group, Held>,
}

#[derive(Default)]
struct Held {
    open: usize,
    /// Connections that have shown no key yet, from the oldest on.
    strangers: BTreeMap<u64, (Instant, Arc<Notify>)>,
}

/// The reason that a connection is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Crowded {
    /// The limit of all connections.
    All(usize),
    /// The share of its address.
    Share(usize),
}

impl Peers {
    /// `most` is how many connections there can be.
    pub fn new(most: usize, config: &ConnectionConfig) -> Arc<Peers> {
        let share = match config.per_address {
            None => (most / 2).max(1),
            Some(0) => usize::MAX,
            Some(n) => n,
        };
        let exempt = config.proxies.iter().map(IpAddr::to_canonical).collect();
        Arc::new(Peers { most, share, exempt, state: Mutex::default() })
    }

    /// Returns whether an address stands for many peers.
    pub fn is_shared(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        ip.is_loopback() || self.exempt.contains(&ip)
    }

    /// Takes a connection in, or says why not.
    pub fn enter(self: &Arc<Self>, ip: IpAddr) -> Result<Seat, Crowded> {
        let (group, shared) = (Group::of(ip), self.is_shared(ip));
        let mut state = self.state.lock();
        let held = state.of.get(&group);
        if !shared && held.is_some_and(|held| held.open >= self.share) {
            return Err(Crowded::Share(self.share));
        }
        if state.open >= self.most && !state.make_room(group) {
            return Err(Crowded::All(self.most));
        }
        let number = state.next;
        state.next += 1;
        state.open += 1;
        let leave = Arc::new(Notify::new());
        let held = state.of.entry(group).or_default();
        held.open += 1;
        held.strangers.insert(number, (Instant::now(), leave.clone()));
        Ok(Seat { peers: self.clone(), group, number, shared, leave })
    }
}

impl State {
    /// Ends the oldest stranger of the address that has most of them, if these are more than those
    /// of the address of the newcomer; else the oldest of its own, once that had its chance.
    fn make_room(&mut self, newcomer: Group) -> bool {
        let count = |held: &Held| held.strangers.len();
        let own = self.of.get(&newcomer).map_or(0, count);
        let most = self.of.iter().max_by_key(|(_, held)| count(held));
        let most = most.filter(|(_, held)| count(held) > own).map(|(group, _)| *group);
        let Some(held) = self.of.get_mut(&most.unwrap_or(newcomer)) else { return false };
        let Some(oldest) = held.strangers.first_entry() else { return false };
        if most.is_none() && oldest.get().0.elapsed() < CHANCE {
            return false;
        }
        // It counts until its descriptor is closed, which is soon.
        oldest.remove().1.notify_one();
        true
    }
}

/// A connection's place; it is free when this is dropped.
pub(crate) struct Seat {
    peers: Arc<Peers>,
    group: Group,
    number: u64,
    shared: bool,
    leave: Arc<Notify>,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seat({:?}, {})", self.group, self.number)
    }
}

impl Seat {
    /// The addresses that count as this one.
    pub fn group(&self) -> Group {
        self.group
    }
    /// Returns whether many peers come from this address.
    pub fn is_shared(&self) -> bool {
        self.shared
    }
    /// A valid key came by this connection: it makes room for nobody.
    pub fn known(&self) {
        if let Some(held) = self.peers.state.lock().of.get_mut(&self.group) {
            held.strangers.remove(&self.number);
        }
    }
    /// Waits until this connection has to make room.
    pub async fn ousted(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.peers.state.lock();
        state.open -= 1;
        if let Some(held) = state.of.get_mut(&self.group) {
            held.open -= 1;
            held.strangers.remove(&self.number);
            if held.open == 0 {
                state.of.remove(&self.group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn ousted(seat: &Seat) -> bool {
        let mut waits = std::pin::pin!(seat.ousted());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        waits.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn an_address_has_a_share_and_proxies_have_none() {
        let config = ConnectionConfig { per_address: Some(2), proxies: vec![ip("10.0.0.9")] };
        let peers = Peers::new(100, &config);
        let held: Vec<Seat> = (0..2).map(|_| peers.enter(ip("10.0.0.1")).unwrap()).collect();
        assert_eq!(peers.enter(ip("10.0.0.1")).unwrap_err(), Crowded::Share(2));
        // The same address, as a socket of IPv6 calls it.
        assert_eq!(peers.enter(ip("::ffff:10.0.0.1")).unwrap_err(), Crowded::Share(2));
        let others: Vec<Seat> = ["127.0.0.1", "127.0.0.1", "127.0.0.1", "10.0.0.9", "10.0.0.9"]
            .into_iter()
            .chain(["10.0.0.9", "::1", "::1", "::1"])
            .map(|a| peers.enter(ip(a)).unwrap())
            .collect();
        let one = peers.enter(ip("2001:db8::1")).unwrap();
        let two = peers.enter(ip("2001:db8::ffff:2")).unwrap();
        assert_eq!(peers.enter(ip("2001:db8:0:0:1::")).unwrap_err(), Crowded::Share(2));
        assert!(peers.enter(ip("2001:db8:0:1::")).is_ok(), "another network");
        drop((held, others, one, two));
        assert_eq!(peers.state.lock().open, 0);
        assert!(peers.state.lock().of.is_empty());
    }

    #[test]
    fn the_default_share_is_half() {
        let peers = Peers::new(6, &ConnectionConfig::default());
        let _held: Vec<Seat> = (0..3).map(|_| peers.enter(ip("10.0.0.1")).unwrap()).collect();
        assert_eq!(peers.enter(ip("10.0.0.1")).unwrap_err(), Crowded::Share(3));
        assert!(peers.enter(ip("10.0.0.2")).is_ok());
    }

    #[test]
    fn strangers_make_room_for_another_address_and_known_ones_never() {
        let peers = Peers::new(4, &ConnectionConfig { per_address: Some(0), ..Default::default() });
        let held: Vec<Seat> = (0..4).map(|_| peers.enter(ip("10.0.0.1")).unwrap()).collect();
        assert_eq!(peers.enter(ip("10.0.0.1")).unwrap_err(), Crowded::All(4), "each has a chance");
        held[0].known();
        let friend = peers.enter(ip("10.0.0.2")).unwrap();
        assert_eq!(held.iter().map(ousted).collect::<Vec<_>>(), [false, true, false, false]);
        friend.known();
        let one = peers.enter(ip("10.0.0.3")).unwrap();
        assert!(ousted(&held[2]) && !ousted(&held[3]));
        assert!(peers.enter(ip("10.0.0.3")).is_err(), "both have one stranger");
        one.known();
        let two = peers.enter(ip("10.0.0.3")).unwrap();
        assert!(ousted(&held[3]));
        two.known();
        assert!(peers.enter(ip("10.0.0.4")).is_err(), "nobody is left who could make room");
        assert!(!ousted(&friend) && !ousted(&held[0]));
    }
}
