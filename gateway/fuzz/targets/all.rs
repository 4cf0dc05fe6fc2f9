//! What bytes from outside must never do, one property per target: a target panics when it does not hold.

pub(crate) mod credentials;
pub(crate) mod envelope;
pub(crate) mod frames;
pub(crate) mod head;
pub(crate) mod host;
mod pickle;
pub(crate) mod relay;

/// Takes any bytes, and panics when its property does not hold.
pub(crate) type Target = fn(&[u8]);

/// Every target by name.
pub(crate) const ALL: [(&str, Target); 6] = [
    ("credentials", credentials::run),
    ("envelope", envelope::run),
    ("frames", frames::run),
    ("head", head::run),
    ("host", host::run),
    ("relay", relay::run),
];

/// Cuts the bytes at their first line end.
fn line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[]),
    }
}
