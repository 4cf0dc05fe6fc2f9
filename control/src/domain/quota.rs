//! What a user may call per day without paying.

use std::collections::BTreeMap;

use protocol::principal::Bucket;

/// Calls per day of a user without an allowance of his own.
pub const DEFAULT_CALLS: u64 = 200;

/// The allowances a user has, the default one always among them.
#[must_use]
pub fn allowances(own: BTreeMap<Bucket, u64>) -> BTreeMap<Bucket, u64> {
    let mut all = own;
    all.entry(Bucket::Default).or_insert(DEFAULT_CALLS);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_allowance_is_always_there_and_gives_way_to_an_own_one() {
        assert_eq!(allowances(BTreeMap::new()), [(Bucket::Default, 200)].into());
        assert_eq!(allowances([(Bucket::Default, 0)].into()), [(Bucket::Default, 0)].into());
    }
}
