//! Names of the `X-Chutes-*` headers, lower case as HTTP/2 wants them.

/// SS58 address of the caller's hotkey.
pub const HOTKEY: &str = "x-chutes-hotkey";
/// Hex sr25519 signature.
pub const SIGNATURE: &str = "x-chutes-signature";
/// Unix time in whole seconds, decimal.
pub const NONCE: &str = "x-chutes-nonce";
/// Miner's hotkey, on requests to an instance.
pub const MINER: &str = "x-chutes-miner";
/// Validator's hotkey, on requests to an instance.
pub const VALIDATOR: &str = "x-chutes-validator";
/// `true` when args and kwargs are serialised one by one.
pub const SERIALIZED: &str = "x-chutes-serialized";
/// Identifier of the call, on every answer of a call host.
pub const INVOCATION_ID: &str = "x-chutes-invocationid";
/// `true` asks for a model's thinking mode.
pub const ENABLE_THINKING: &str = "x-enable-thinking";
/// `true` asks for the internal event stream of a call.
pub const TRACE: &str = "x-chutes-trace";
/// Prefix of every header that only the edge may set towards our own services.
pub const PREFIX: &str = "x-chutes-";
