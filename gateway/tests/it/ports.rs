//! Ports for programs that a test starts.

use std::net::TcpListener;

/// Ports that no outgoing connection of the machine is given, so that nobody takes one in between.
const BELOW_EPHEMERAL: std::ops::Range<u16> = 10_000..32_000;

/// A port of the loopback that was free a moment ago; drawn by chance, since tests run in several processes.
pub(crate) fn free_port() -> u16 {
    loop {
        let port = rand::random_range(BELOW_EPHEMERAL);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
