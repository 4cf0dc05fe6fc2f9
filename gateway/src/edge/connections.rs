//! Counts the open connections of clients, of each address and in all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;

use crate::metrics::Refused;

/// How many connections there may be.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of all clients.
    pub all: usize,
    /// Of one address.
    pub per_address: usize,
    /// Addresses that only the limit of all holds for: balancers, behind which everybody stands.
    pub exempt: Vec<IpAddr>,
}

/// The open connections.
#[derive(Debug)]
pub struct Connections {
    limits: Limits,
    open: Mutex<Open>,
    count: IntGauge,
}

#[derive(Debug, Default)]
struct Open {
    all: usize,
    /// Only networks with open connections are in here, so that it is no larger than `all`.
    by_network: HashMap<IpAddr, usize, ahash::RandomState>,
}

/// One open connection; it counts until this is dropped.
#[derive(Debug)]
pub struct Held {
    connections: Arc<Connections>,
    network: Option<IpAddr>,
}

impl Connections {
    /// No connection yet; `count` shows how many there are.
    #[must_use]
    pub fn new(limits: Limits, count: IntGauge) -> Arc<Self> {
        Arc::new(Self { limits, open: Mutex::default(), count })
    }

    /// Counts one more.
    ///
    /// # Errors
    /// When there are as many as there may be.
    pub fn take(self: &Arc<Self>, peer: Option<IpAddr>) -> Result<Held, Refused> {
        let peer = peer.map(|peer| peer.to_canonical());
        let network = peer.filter(|peer| !self.limits.exempt.contains(peer)).map(network);
        let mut open = self.open();
        if open.all >= self.limits.all {
            return Err(Refused::Connections);
        }
        if let Some(network) = network {
            let of_network = open.by_network.get(&network).copied().unwrap_or_default();
            if of_network >= self.limits.per_address {
                return Err(Refused::ConnectionsOfAddress);
            }
            open.by_network.insert(network, of_network + 1);
        }
        open.all += 1;
        self.count.inc();
        drop(open);
        Ok(Held { connections: Arc::clone(self), network })
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        open.all -= 1;
        self.connections.count.dec();
        let Some(network) = self.network else { return };
        if let Some(count) = open.by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                open.by_network.remove(&network);
            }
        }
    }
}

/// What one client can be expected to have: an address, or a /64, of which it may use every address.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BALANCER: &str = "10.0.0.1";

    fn connections(all: usize, per_address: usize) -> Arc<Connections> {
        let count = IntGauge::new("connections", "open").unwrap();
        Connections::new(Limits { all, per_address, exempt: vec![BALANCER.parse().unwrap()] }, count)
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_address_has_its_own_limit_and_gets_its_places_back() {
        let connections = connections(10, 2);
        let first = connections.take(address("192.0.2.1")).unwrap();
        let _second = connections.take(address("::ffff:192.0.2.1")).unwrap();
        assert_eq!(connections.take(address("192.0.2.1")).unwrap_err(), Refused::ConnectionsOfAddress);
        let _other = connections.take(address("192.0.2.2")).unwrap();
        drop(first);
        assert!(connections.take(address("192.0.2.1")).is_ok());
    }

    #[test]
    fn a_64_of_ipv6_counts_as_one_address() {
        let connections = connections(10, 1);
        let _first = connections.take(address("2001:db8::1")).unwrap();
        let refused = connections.take(address("2001:db8::ffff:ffff:ffff:ffff")).unwrap_err();
        assert_eq!(refused, Refused::ConnectionsOfAddress);
        assert!(connections.take(address("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn a_balancer_has_only_the_limit_of_all() {
        let connections = connections(3, 1);
        let held: Vec<Held> = (0..3).map(|_| connections.take(address(BALANCER)).unwrap()).collect();
        assert_eq!(connections.take(address(BALANCER)).unwrap_err(), Refused::Connections);
        assert_eq!(connections.take(None).unwrap_err(), Refused::Connections);
        assert_eq!(connections.count.get(), 3);
        drop(held);
        assert_eq!(connections.count.get(), 0);
    }

    #[test]
    fn the_table_holds_no_address_without_a_connection() {
        let connections = connections(10, 1);
        drop(connections.take(address("192.0.2.1")).unwrap());
        assert!(connections.open().by_network.is_empty());
    }
}
