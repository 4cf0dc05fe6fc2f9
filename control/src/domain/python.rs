//! Asks a real Python whether it agrees.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs `program` with this input; it prints `agreed`. Python is among the packages that tests need.
pub(crate) fn agrees(program: &str, input: &[u8]) {
    let mut python = Command::new("python3");
    python.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = python.spawn().expect("python3 is installed");
    let mut pipe = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || pipe.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "agreed");
}
