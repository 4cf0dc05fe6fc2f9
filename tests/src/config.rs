//! Every setting of the program `local`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Brings the whole platform up on this machine, with real parts.
#[derive(Parser)]
#[command(name = "local", version)]
pub struct Config {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Starts the platform and keeps it until Ctrl-C.
    Run(Run),
    /// Stops a platform that runs detached.
    Stop(Place),
}

/// Settings of `run`.
#[derive(Args)]
pub struct Run {
    /// Where.
    #[command(flatten)]
    pub place: Place,

    /// Returns when everything is ready and leaves the platform running.
    #[arg(long)]
    pub detach: bool,

    /// What a detached platform is started with.
    #[arg(long, hide = true)]
    pub detached: bool,

    /// Number of gateways.
    #[arg(long, default_value = "2", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub gateways: u8,

    /// Folder for PostgreSQL's data when its user cannot enter the folder of the stack.
    #[arg(long, env = "CHUTES_STATE", default_value = "/var/lib/chutes-validator")]
    pub state: PathBuf,
}

/// Where a stack keeps everything it has.
#[derive(Args)]
pub struct Place {
    /// Folder of the stack.
    #[arg(long, default_value = ".local")]
    pub dir: PathBuf,
}
