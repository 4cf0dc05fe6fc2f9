//! Runs the Python scripts beside it, in environments with the packages they need.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use stack::children::{Launch, run};
use stack::venv::{Requirements, Venv};

/// What OpenAI's users have installed.
const OPENAI: Requirements = Requirements { name: "openai", packages: &["openai==3.54.0"] };
/// What SDK 0.3.33 checks signatures, loads pickles and decrypts with.
const INSTANCE: Requirements = Requirements {
    name: "instance",
    packages: &["substrate-interface==1.8.1", "fickling==0.1.3", "pycryptodome==3.24.1"],
};
const LONGEST: Duration = Duration::from_secs(50);

/// The OpenAI SDK.
pub(crate) struct Sdk(Venv);

impl Sdk {
    pub(crate) async fn new() -> Self {
        Self(Venv::with(OPENAI).await.unwrap())
    }

    /// Runs a script with what it is to do; what it saw.
    pub(crate) async fn run(&self, script: &str, task: &Value) -> Value {
        let launch = launch(&self.0, script).variable("TASK", task.to_string());
        let text = run(&launch, LONGEST).await.unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

/// An instance of SDK 0.3.33 that is still to be told its port, its miner and its validator.
pub(crate) async fn instance() -> Launch {
    launch(&Venv::with(INSTANCE).await.unwrap(), "instance")
}

fn launch(venv: &Venv, script: &str) -> Launch {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("flows/python/{script}.py"));
    Launch::new(script, &venv.python)
        .arguments([path.display().to_string()])
        .variable("PYTHONDONTWRITEBYTECODE", "1")
        .variable("PYTHONUNBUFFERED", "1")
}
