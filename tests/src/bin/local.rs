//! Brings the whole platform up on this machine, or stops it.

use std::process::ExitCode;

use clap::Parser;
use stack::config::{Command, Config};
use stack::{local, screen};

#[tokio::main]
async fn main() -> ExitCode {
    let config = Config::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
    let done = match config.command {
        Command::Run(run) if run.detach => local::detach(&run).await,
        Command::Run(run) => local::run(&run).await,
        Command::Stop(place) => local::stop(&place).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            screen::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
