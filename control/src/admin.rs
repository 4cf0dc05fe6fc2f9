//! Operator commands: one per process, or many over standard input.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};

use anyhow::Context;
use clap::{Parser, Subcommand};
use protocol::sealing::DirectoryKey;
use protocol::session::SessionSigner;
use serde_json::{Map, Value, json};
use sqlx::PgPool;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::clock::Clock;
use crate::config;
use crate::db;

mod aliases;
mod api_keys;
mod chutes;
mod failure;
mod find;
mod images;
mod instances;
mod publications;
mod quotas;
mod shares;
mod users;

pub use failure::Failure;

/// Longest line of a batch in bytes.
const LONGEST_LINE: u64 = 1 << 20;

/// What a command answers.
type Answer = Result<Value, Failure>;

/// What commands work with.
pub struct Admin {
    db: PgPool,
    clock: Clock,
    database_key: DirectoryKey,
    sessions: SessionSigner,
}

/// One command.
#[derive(Parser)]
#[command(name = "admin", no_binary_name = true)]
struct Line {
    /// Prints the result as one JSON object.
    #[arg(long, global = true)]
    json: bool,

    /// The command.
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Accounts.
    #[command(subcommand)]
    User(users::Command),
    /// API keys.
    #[command(subcommand)]
    Key(api_keys::Command),
    /// Session tokens.
    #[command(subcommand)]
    Token(users::TokenCommand),
    /// Calls per day that cost nothing.
    #[command(subcommand)]
    Quota(quotas::QuotaCommand),
    /// Balances.
    #[command(subcommand)]
    Balance(quotas::BalanceCommand),
    /// Container images.
    #[command(subcommand)]
    Image(images::Command),
    /// Deployed applications.
    #[command(subcommand)]
    Chute(chutes::Command),
    /// Private chutes that other users may call.
    #[command(subcommand)]
    Share(shares::Command),
    /// Running copies of chutes.
    #[command(subcommand)]
    Instance(instances::Command),
    /// Other names of models.
    #[command(subcommand)]
    Alias(aliases::Command),
    /// The directory that gateways route by.
    #[command(subcommand)]
    Directory(publications::DirectoryCommand),
    /// What gateways know of callers.
    #[command(subcommand)]
    Principals(publications::PrincipalsCommand),
    /// Reads commands from standard input, a JSON array of words per line, until its end.
    Batch,
}

impl Admin {
    /// Commands over this database.
    #[must_use]
    pub fn new(db: PgPool, clock: Clock, database_key: DirectoryKey, sessions: SessionSigner) -> Self {
        Self { db, clock, database_key, sessions }
    }

    /// Commands with these settings.
    ///
    /// # Errors
    /// When a secret is not what it should be.
    pub fn from_config(settings: &config::Admin) -> anyhow::Result<Self> {
        let mut seed = [0; 32];
        hex::decode_to_slice(settings.session_seed.reveal(), &mut seed).context("the session seed is 64 hex digits")?;
        let database_key = DirectoryKey::from_hex(settings.database_key.database_key.reveal());
        Ok(Self::new(
            db::pool(settings.database.database_url.reveal())?,
            settings.time.clock(),
            database_key.context("reading the database key")?,
            SessionSigner::from_seed(seed),
        ))
    }

    /// Runs the command line of a process; `false` when the command failed and its reason was printed.
    ///
    /// # Errors
    /// When standard input or output fails.
    pub async fn run(&self, words: Vec<String>) -> anyhow::Result<bool> {
        let line = match Line::try_parse_from(words) {
            Ok(line) => line,
            Err(wrong) => {
                wrong.print().context("printing how commands look")?;
                return Ok(!wrong.use_stderr());
            }
        };
        if matches!(line.command, Command::Batch) {
            let input = file_of(std::io::stdin().as_fd()).context("opening standard input")?;
            let output = file_of(std::io::stdout().as_fd()).context("opening standard output")?;
            self.batch(tokio::io::BufReader::new(input), output).await?;
            return Ok(true);
        }
        match self.answer(line.command).await {
            Ok(result) => {
                let text = if line.json { result.to_string() } else { for_people(&result) };
                writeln!(std::io::stdout(), "{text}").context("printing the result")?;
                Ok(true)
            }
            Err(failure) => {
                writeln!(std::io::stderr(), "{failure}").context("printing the reason")?;
                Ok(false)
            }
        }
    }

    /// Answers each line of the input with a line of the output.
    ///
    /// # Errors
    /// When input or output fails, or a line is too long.
    pub async fn batch(
        &self,
        mut input: impl AsyncBufRead + Unpin,
        mut output: impl AsyncWrite + Unpin,
    ) -> anyhow::Result<()> {
        let mut line = String::new();
        loop {
            line.clear();
            let read = (&mut input).take(LONGEST_LINE).read_line(&mut line).await.context("reading a command")?;
            if read == 0 {
                return Ok(());
            }
            if !line.ends_with('\n') && read as u64 == LONGEST_LINE {
                anyhow::bail!("a line is longer than {LONGEST_LINE} bytes");
            }
            if line.trim().is_empty() {
                continue;
            }
            let answer = match self.answer_line(&line).await {
                Ok(result) => json!({ "ok": true, "result": result }),
                Err(failure) => json!({ "ok": false, "error": failure.to_string() }),
            };
            output.write_all(format!("{answer}\n").as_bytes()).await.context("writing an answer")?;
            output.flush().await.context("writing an answer")?;
        }
    }

    /// Runs a command given as a JSON array of words.
    async fn answer_line(&self, line: &str) -> Answer {
        let words: Vec<String> =
            serde_json::from_str(line).map_err(|_| Failure::refused("a command is a JSON array of words"))?;
        let line = Line::try_parse_from(words).map_err(|wrong| Failure::refused(wrong.to_string().trim_end()))?;
        self.answer(line.command).await
    }

    async fn answer(&self, command: Command) -> Answer {
        match command {
            Command::User(command) => self.user(command).await,
            Command::Key(command) => self.key(command).await,
            Command::Token(command) => self.token(command).await,
            Command::Quota(command) => self.quota(command).await,
            Command::Balance(command) => self.balance(command).await,
            Command::Image(command) => self.image(command).await,
            Command::Chute(command) => self.chute(command).await,
            Command::Share(command) => self.share(command).await,
            Command::Instance(command) => self.instance(command).await,
            Command::Alias(command) => self.alias(command).await,
            Command::Directory(command) => self.directory(command).await,
            Command::Principals(command) => self.principals(command).await,
            Command::Batch => Err(Failure::refused("a batch cannot begin inside a batch")),
        }
    }
}

/// An open file for the async runtime.
fn file_of(open: BorrowedFd<'_>) -> std::io::Result<tokio::fs::File> {
    Ok(tokio::fs::File::from_std(File::from(open.try_clone_to_owned()?)))
}

/// A result as lines of `name value`.
fn for_people(result: &Value) -> String {
    let empty = Map::new();
    let fields = result.as_object().unwrap_or(&empty);
    let width = fields.keys().map(String::len).max().unwrap_or_default();
    let line = |(name, value): (&String, &Value)| match value {
        Value::String(text) => format!("{name:width$}  {text}"),
        other => format!("{name:width$}  {other}"),
    };
    fields.iter().map(line).collect::<Vec<_>>().join("\n")
}
