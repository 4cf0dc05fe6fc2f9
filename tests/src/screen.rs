//! What the person at the terminal reads.

use std::io::Write;

/// Writes a line to standard output at once.
pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A closed terminal is no reason to stop the platform.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
