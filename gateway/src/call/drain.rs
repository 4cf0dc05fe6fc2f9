//! Reads off a request body that nobody wants, so that the client gets to read its answer.

use std::time::Duration;

use super::downstream::Downstream;

/// How long a refused body is read.
const LONGEST: Duration = Duration::from_secs(2);
/// How much of it is read.
const LARGEST: usize = 64 << 20;

/// Reads what is left of the body within bounds; past them the connection is closed after the answer.
///
/// A client of HTTP/1.1 sends its whole body before it reads the answer, and a connection that is closed with unread
/// bytes is reset, which can destroy the answer on its way.
pub(super) async fn drain(client: &mut impl Downstream) {
    if client.is_read() {
        return;
    }
    if client.waits_for_continue() || !matches!(tokio::time::timeout(LONGEST, read_off(client)).await, Ok(true)) {
        client.close_after();
    }
}

/// Whether the end of the body was reached.
async fn read_off(client: &mut impl Downstream) -> bool {
    let mut read = 0;
    while let Ok(piece) = client.piece().await {
        let Some(piece) = piece else { return true };
        read += piece.len();
        if read > LARGEST {
            return false;
        }
    }
    false
}

#[cfg(test)]
mod tests;
