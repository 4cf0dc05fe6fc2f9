//! What the kernel knows of a connection that HTTP does not tell.

use pingora::protocols::SocketDigest;

/// How many segments with content have come in, none if the kernel does not say.
///
/// The socket must still be open.
pub(super) fn segments_received(socket: &SocketDigest) -> Option<u32> {
    socket.tcp_info().map(|info| info.tcpi_data_segs_in)
}
