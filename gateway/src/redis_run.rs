//! Which run of Redis a connection leads to: another one may have lost what was written to the last.

use redis::RedisResult;
use redis::aio::MultiplexedConnection;

/// Asks for the run; none if Redis does not say.
///
/// # Errors
/// When the connection breaks or the answer takes too long.
pub(crate) async fn run_id(connection: &mut MultiplexedConnection) -> RedisResult<Option<String>> {
    match redis::cmd("INFO").arg("server").query_async::<String>(connection).await {
        Ok(text) => Ok(text.lines().find_map(|line| line.strip_prefix("run_id:")).map(|run| run.trim().to_owned())),
        Err(error) if error.is_io_error() || error.is_timeout() => Err(error),
        Err(_) => Ok(None),
    }
}
