//! Speaks with `control admin batch`, the operator's commands, over pipes.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

use crate::children::{Child, Launch, Spawner};

const ANSWER: Duration = Duration::from_secs(30);

/// A running batch of operator's commands; dropping it ends it.
pub struct Admin {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// One line of the batch's answers.
#[derive(Deserialize)]
struct Answer {
    ok: bool,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: String,
}

impl Admin {
    /// Starts a batch.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(launch: &Launch, spawner: &Spawner) -> anyhow::Result<Self> {
        let mut child = spawner.start_piped(launch).await?;
        let (input, output) = child.pipes().context("the batch has no pipes")?;
        let input = ChildStdin::from_std(input).context("taking the batch's input")?;
        let output = ChildStdout::from_std(output).context("taking the batch's output")?;
        Ok(Self { child, input, output: BufReader::new(output).lines() })
    }

    /// Runs one command and gives its result.
    ///
    /// # Errors
    /// With the command's own words when it fails.
    pub async fn run(&mut self, command: &[&str]) -> anyhow::Result<Value> {
        let mut line = serde_json::to_string(command)?;
        line.push('\n');
        let exchange = async {
            self.input.write_all(line.as_bytes()).await?;
            self.input.flush().await?;
            self.output.next_line().await
        };
        let shown = command.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        let reply = tokio::time::timeout(ANSWER, exchange).await.with_context(|| format!("{shown}: no answer"))??;
        let Some(reply) = reply else {
            let status = self.child.ended()?;
            bail!("{shown}: the batch ended ({status:?}); see control-admin.log");
        };
        let answer: Answer = serde_json::from_str(&reply).with_context(|| format!("{shown}: unreadable answer"))?;
        if !answer.ok {
            bail!("{shown}: {}", answer.error);
        }
        Ok(answer.result)
    }

    /// Runs one command and gives one text field of its result.
    ///
    /// # Errors
    /// With the command's own words when it fails, or when the field is missing.
    pub async fn text(&mut self, command: &[&str], field: &str) -> anyhow::Result<String> {
        let result = self.run(command).await?;
        let text = result.get(field).and_then(Value::as_str);
        text.map(str::to_owned).with_context(|| format!("the answer has no field {field}"))
    }
}
