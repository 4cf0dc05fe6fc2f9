//! The address of an instance.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Where an instance listens: an IP literal or a DNS name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(String);

/// A text that is no host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a host is an IP address or a DNS name")]
pub struct InvalidHost;

impl FromStr for Host {
    type Err = InvalidHost;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.to_string()));
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        // A name of digits alone would be read as an address by some and as a name by others.
        let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if text.len() > 253 || numeric || !text.split('.').all(label) {
            return Err(InvalidHost);
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_hosts_and_nothing_else_is() {
        for text in ["127.0.0.1", "::1", "miner-7.example.com", "localhost"] {
            assert_eq!(text.parse::<Host>().map(|host| host.to_string()).as_deref(), Ok(text));
        }
        for text in ["", "127.0.0", "a..b", "-a.example", "a b", "a/b", "user@host", "host:80", "[::1]", "ä.example"] {
            assert_eq!(text.parse::<Host>(), Err(InvalidHost), "{text}");
        }
    }
}
