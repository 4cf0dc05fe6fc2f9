//! Starts the gateway.

use std::io::Write;

use anyhow::Context;
use clap::Parser;
use gateway::config::Config;
use gateway::{server, telemetry};

/// What the stack compares to refuse a stale executable.
const BUILD_ID: &str = match option_env!("CHUTES_BUILD_ID") {
    Some(id) => id,
    None => "unset",
};

fn main() -> anyhow::Result<()> {
    if std::env::args().nth(1).is_some_and(|argument| argument == "--build-id") {
        return writeln!(std::io::stdout(), "{BUILD_ID}").context("writing the build id");
    }
    let config = Config::parse();
    let provider = rustls::crypto::ring::default_provider();
    provider.install_default().map_err(|_| anyhow::anyhow!("another TLS provider was installed before"))?;
    telemetry::start(&config.log, config.log_json)?;
    server::run(&config)
}
