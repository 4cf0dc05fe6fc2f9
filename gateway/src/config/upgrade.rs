//! Settings of the change from one gateway process to the next.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::seconds;

/// The change from one process to the next.
#[derive(Args)]
pub struct Upgrade {
    /// Takes the listening sockets over from the gateway that answers at the hand-over socket, once this one is healthy;
    /// opens them itself when none answers.
    #[arg(long, requires = "upgrade_socket")]
    pub upgrade: bool,

    /// Socket by which one gateway hands its listening sockets to the next, in a folder of its own with mode 0700.
    #[arg(long, env = "GATEWAY_UPGRADE_SOCKET")]
    pub upgrade_socket: Option<PathBuf>,

    /// How long the next gateway may take to become healthy.
    #[arg(long, env = "GATEWAY_UPGRADE_SECONDS", default_value = "60", value_parser = seconds)]
    pub upgrade_within: Duration,

    /// How long a replaced gateway waits for calls in flight.
    #[arg(long, env = "GATEWAY_UPGRADE_DRAIN_SECONDS", default_value = "3600", value_parser = seconds)]
    pub upgrade_drain: Duration,

    /// How long a replaced gateway waits for another request on an idle connection before it closes it.
    #[arg(long, env = "GATEWAY_LINGER_SECONDS", default_value = "10", value_parser = seconds)]
    pub linger: Duration,

    /// Where the service manager hears that the gateway serves, in the words of systemd.
    #[arg(long, env = "NOTIFY_SOCKET")]
    pub notify_socket: Option<PathBuf>,
}
