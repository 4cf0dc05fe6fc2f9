//! Asks a real Python whether it agrees.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs `program` with this input; it prints `agreed`. A machine without Python says so instead of passing in silence.
pub(crate) fn agrees(program: &str, input: &[u8]) {
    let child = Command::new("python3").args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else {
        writeln!(std::io::stderr(), "SKIPPED: no python3 to compare with").unwrap();
        return;
    };
    let mut pipe = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || pipe.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "agreed");
}
