//! What the kernel knows of a connection that HTTP does not tell.

use pingora::protocols::SocketDigest;

/// The state of a TCP connection whose two sides are both open.
const ESTABLISHED: u8 = 1;

/// Whether the other side has closed the connection, also when bytes it sent before are not read yet.
///
/// The socket must still be open.
pub(super) fn is_left(socket: &SocketDigest) -> bool {
    socket.tcp_info().is_some_and(|info| info.tcpi_state != ESTABLISHED)
}

/// How many bytes the other side's system has confirmed, none if ours does not say.
///
/// The socket must still be open.
pub(super) fn bytes_confirmed(socket: &SocketDigest) -> Option<u64> {
    socket.tcp_info().map(|info| info.tcpi_bytes_acked)
}
