//! Counts what clients hold at once, each address and all of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::IntGauge;

/// How many there may be.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Of all clients.
    pub all: usize,
    /// Of one address.
    pub per_address: usize,
    /// Addresses that only the limit of all holds for: balancers, behind which everybody stands.
    pub exempt: Vec<IpAddr>,
}

/// Things of one kind that clients hold: connections, or requests in the hands of a service.
#[derive(Debug)]
pub struct Holdings {
    limits: Limits,
    numbers: Mutex<Numbers>,
    count: IntGauge,
}

#[derive(Debug, Default)]
struct Numbers {
    all: usize,
    /// Only networks that hold something are in here, so that it is no larger than `all`.
    by_network: HashMap<IpAddr, usize, ahash::RandomState>,
}

/// One of them; it counts until this is dropped.
#[derive(Debug)]
pub struct Held {
    holdings: Arc<Holdings>,
    network: Option<IpAddr>,
}

/// Why there is no room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// All clients together hold as many as they may.
    All,
    /// The address does.
    Address,
}

impl Holdings {
    /// Nothing yet; `count` shows how many there are.
    #[must_use]
    pub fn new(limits: Limits, count: IntGauge) -> Arc<Self> {
        Arc::new(Self { limits, numbers: Mutex::default(), count })
    }

    /// Counts one more, if there may be one.
    pub(super) fn take(self: &Arc<Self>, client: Option<IpAddr>) -> Result<Held, Full> {
        let client = client.map(|client| client.to_canonical());
        let network = client.filter(|client| !self.limits.exempt.contains(client)).map(network);
        let mut numbers = self.numbers();
        if numbers.all >= self.limits.all {
            return Err(Full::All);
        }
        if let Some(network) = network {
            let of_network = numbers.by_network.get(&network).copied().unwrap_or_default();
            if of_network >= self.limits.per_address {
                return Err(Full::Address);
            }
            numbers.by_network.insert(network, of_network + 1);
        }
        numbers.all += 1;
        self.count.inc();
        drop(numbers);
        Ok(Held { holdings: Arc::clone(self), network })
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut numbers = self.holdings.numbers();
        numbers.all -= 1;
        self.holdings.count.dec();
        let Some(network) = self.network else { return };
        if let Some(count) = numbers.by_network.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                numbers.by_network.remove(&network);
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

    fn holdings(all: usize, per_address: usize) -> Arc<Holdings> {
        let count = IntGauge::new("held", "held").unwrap();
        Holdings::new(Limits { all, per_address, exempt: vec![BALANCER.parse().unwrap()] }, count)
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_address_has_its_own_limit_and_gets_its_places_back() {
        let holdings = holdings(10, 2);
        let first = holdings.take(address("192.0.2.1")).unwrap();
        let _second = holdings.take(address("::ffff:192.0.2.1")).unwrap();
        assert_eq!(holdings.take(address("192.0.2.1")).unwrap_err(), Full::Address);
        let _other = holdings.take(address("192.0.2.2")).unwrap();
        drop(first);
        assert!(holdings.take(address("192.0.2.1")).is_ok());
    }

    #[test]
    fn a_64_of_ipv6_counts_as_one_address() {
        let holdings = holdings(10, 1);
        let _first = holdings.take(address("2001:db8::1")).unwrap();
        let refused = holdings.take(address("2001:db8::ffff:ffff:ffff:ffff")).unwrap_err();
        assert_eq!(refused, Full::Address);
        assert!(holdings.take(address("2001:db8:0:1::1")).is_ok());
    }

    #[test]
    fn a_balancer_has_only_the_limit_of_all() {
        let holdings = holdings(3, 1);
        let held: Vec<Held> = (0..3).map(|_| holdings.take(address(BALANCER)).unwrap()).collect();
        assert_eq!(holdings.take(address(BALANCER)).unwrap_err(), Full::All);
        assert_eq!(holdings.take(None).unwrap_err(), Full::All);
        assert_eq!(holdings.count.get(), 3);
        drop(held);
        assert_eq!(holdings.count.get(), 0);
    }

    #[test]
    fn the_table_has_no_address_that_holds_nothing() {
        let holdings = holdings(10, 1);
        drop(holdings.take(address("192.0.2.1")).unwrap());
        assert!(holdings.numbers().by_network.is_empty());
    }
}
