//! Asks a real Python whether it agrees.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Runs `program` with this input; it prints `agreed`. A machine without Python says so, and where CI runs it fails.
pub(crate) fn agrees(program: &str, input: &[u8]) {
    ask("python3", std::env::var_os("CI").is_some(), program, input);
}

fn ask(python: &str, required: bool, program: &str, input: &[u8]) {
    let child = Command::new(python).args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            assert!(!required, "no {python} to compare with: {error}");
            // Past the test runner, which hides what a test that passes prints.
            writeln!(std::io::stderr(), "SKIPPED: no {python} to compare with: {error}").unwrap();
            return;
        }
    };
    let mut pipe = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || pipe.write_all(&input));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "agreed");
}

#[test]
#[should_panic(expected = "no python-that-is-not-there to compare with")]
fn a_missing_python_fails_where_it_is_required() {
    ask("python-that-is-not-there", true, "", b"");
}

#[test]
fn a_missing_python_is_skipped_elsewhere() {
    ask("python-that-is-not-there", false, "", b"");
}
