//! The sample miner as a process of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use stack::programs::BUILD_ID;
use stack::screen;
use tracing::error;

/// Serves the instances that a settings file describes.
#[derive(Parser)]
#[command(name = "miner", version)]
struct Arguments {
    /// Prints the build id and ends.
    #[arg(long)]
    build_id: bool,

    /// The settings file.
    #[arg(required_unless_present = "build_id")]
    settings: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(settings) = arguments.settings.filter(|_| !arguments.build_id) else {
        screen::say(BUILD_ID);
        return ExitCode::SUCCESS;
    };
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    match stack::miner::serve(&settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!(error = format!("{error:#}"), "the sample miner failed");
            ExitCode::FAILURE
        }
    }
}
