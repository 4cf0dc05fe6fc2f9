//! A platform that a person starts detached serves, is there once, and ends whole.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use stack::description::{self, Description};
use stack::local::commands;
use stack::programs::Programs;
use tempfile::TempDir;

/// What a person types, in a folder that goes with the test; what still runs then is stopped.
struct Terminal {
    local: PathBuf,
    folder: TempDir,
}

impl Terminal {
    async fn open() -> Self {
        let programs = Programs::find().await.unwrap();
        Self { local: programs.gateway.with_file_name("local"), folder: tempfile::tempdir().unwrap() }
    }

    fn local(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.local);
        command.args(words).arg("--dir").arg(self.folder.path());
        if words[0] == "run" {
            command.arg("--state").arg(self.folder.path().join("state")).args(["--gateways", "1"]);
        }
        command
    }

    async fn type_in(&self, mut command: Command) -> (bool, String) {
        let Output { status, stdout, .. } =
            tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        (status.success(), String::from_utf8(stdout).unwrap())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing is left to stop when the test went well.
        let _ = self.local(&["stop"]).output();
    }
}

/// Whether a process is there and has not ended.
fn runs(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    state.is_ok_and(|state| !state.contains(") Z "))
}

fn described(folder: &Path) -> Description {
    serde_json::from_slice(&std::fs::read(folder.join(description::FILE)).unwrap()).unwrap()
}

/// It makes a cluster and certificates, which takes some twenty seconds, as the first `make run` does.
#[tokio::test]
async fn a_detached_platform_serves_refuses_a_second_one_and_ends_whole() {
    let terminal = Terminal::open().await;
    let (started, said) = terminal.type_in(terminal.local(&["run", "--detach"])).await;
    assert!(started, "{said}");
    let stack = described(terminal.folder.path());
    let stop = format!("local stop --dir {}", terminal.folder.path().display());
    assert!(said.contains(&stop) && !said.contains("Ctrl-C"), "{said}");

    let [chat, ..] = commands(&stack);
    assert!(said.contains(&chat), "{said}");
    let mut bash = Command::new("bash");
    bash.args(["-c", &chat]);
    let (answered, text) = terminal.type_in(bash).await;
    assert!(answered && text.contains("data: [DONE]"), "{text}");

    let (again, said) = terminal.type_in(terminal.local(&["run", "--detach"])).await;
    assert!(!again && said.contains("a stack runs in") && said.contains(&stop), "{said}");
    let pids: Vec<u32> = stack.pids.values().flatten().copied().collect();
    assert!(pids.len() >= 6 && pids.iter().all(|pid| runs(*pid)), "{:?}", stack.pids);

    let (stopped, said) = terminal.type_in(terminal.local(&["stop"])).await;
    assert!(stopped, "{said}");
    assert!(!pids.iter().any(|pid| runs(*pid)), "{:?}", stack.pids);
    let (stopped, said) = terminal.type_in(terminal.local(&["stop"])).await;
    assert!(!stopped && said.contains("no stack runs"), "{said}");
}
