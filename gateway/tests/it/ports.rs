//! Ports for programs that a test starts.

use std::fs::{File, create_dir_all};
use std::net::TcpListener;
use std::sync::Mutex;

/// Ports that no outgoing connection of the machine is given, nor a whole stack, so that nobody takes one in between.
const BELOW_STACKS: std::ops::Range<u16> = 10_000..18_000;

/// The locks of what this process was given, held to its end.
static GIVEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A free port of the loopback that no other test is given: tests run in many processes at once.
pub(crate) fn free_port() -> u16 {
    let folder = std::env::temp_dir().join("chutes-test-ports");
    create_dir_all(&folder).unwrap();
    loop {
        let port = rand::random_range(BELOW_STACKS);
        let lock = File::create(folder.join(port.to_string())).unwrap();
        if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            GIVEN.lock().unwrap().push(lock);
            return port;
        }
    }
}
