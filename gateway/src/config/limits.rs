//! Settings of what a caller may use.

use std::time::Duration;

use clap::Args;
use protocol::lease::DEAD_AFTER;

use super::seconds;

/// What a caller may use.
#[derive(Args)]
pub struct Limits {
    /// Calls per minute and user, also per user and chute, unless overridden.
    #[arg(long, env = "GATEWAY_RATE_PER_MINUTE", default_value = "600")]
    pub rate_per_minute: u32,

    /// Calls at once per user, also per user and chute, unless overridden.
    #[arg(long, env = "GATEWAY_MAX_CONCURRENT", default_value = "128")]
    pub max_concurrent: u32,

    /// How long what was leased from Redis is relied on without a word from it, from 0.5 to 2 s. After that limits are
    /// divided by the number of gateways.
    #[arg(long = "lease", env = "GATEWAY_LEASE_SECONDS", default_value = "1", value_parser = lease)]
    pub lease: Duration,
}

/// Reads the life of a lease: longer than some beats, and clearly shorter than a gateway counts as alive.
fn lease(text: &str) -> Result<Duration, String> {
    let lease = seconds(text)?;
    let allowed = Duration::from_millis(500)..=DEAD_AFTER - Duration::from_secs(1);
    if allowed.contains(&lease) { Ok(lease) } else { Err(format!("{text} s is not from 0.5 to 2 s")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_before_its_gateway_counts_as_gone() {
        assert_eq!(lease("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(lease("2"), Ok(Duration::from_secs(2)));
        assert!(lease("0.4").is_err());
        assert!(lease("3").is_err());
    }
}
