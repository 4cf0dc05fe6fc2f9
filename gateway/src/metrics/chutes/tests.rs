//! However many chutes there are, the series stay within their bound and the sums stay whole.

use prometheus::Registry;
use prometheus::proto::MetricFamily;
use uuid::Uuid;

use super::*;

/// More chutes than may have a label.
const MANY: u128 = 600;

fn chute(number: u128) -> ChuteId {
    ChuteId(Uuid::from_u128(number))
}

fn chutes() -> (Registry, Chutes) {
    let registry = Registry::new();
    let chutes = Chutes::new(Register(&registry)).unwrap();
    (registry, chutes)
}

fn attempts(registry: &Registry) -> MetricFamily {
    let families = registry.gather();
    let attempts = families.into_iter().find(|family| family.name() == "chutes_gateway_chute_attempts_total");
    attempts.unwrap()
}

fn value(family: &MetricFamily, label: &str) -> Option<f64> {
    let labelled = family.get_metric().iter().find(|metric| metric.get_label()[0].value() == label)?;
    Some(labelled.get_counter().get_value())
}

#[test]
fn six_hundred_chutes_make_five_hundred_series_and_none_is_uncounted() {
    let (registry, chutes) = chutes();
    for number in (0..MANY).chain(0..MANY) {
        chutes.of(chute(number)).attempts.inc();
    }
    for family in registry.gather() {
        assert!(PER_CHUTE.contains(&family.name()), "{}", family.name());
        assert_eq!(family.get_metric().len(), MOST, "{}", family.name());
    }
    let attempts = attempts(&registry);
    assert_eq!(value(&attempts, &chute(0).to_string()), Some(2.0));
    assert_eq!(value(&attempts, &chute(MANY - 1).to_string()), None);
    let named = MOST as u128 - 1;
    assert_eq!(value(&attempts, OTHER), Some((2 * (MANY - named)) as f64));
}

#[test]
fn a_chute_that_is_gone_makes_room_for_another() {
    let (registry, chutes) = chutes();
    for number in 0..MANY {
        chutes.of(chute(number)).attempts.inc();
    }
    let gone = chutes.of(chute(0));
    chutes.keep(|known| known != chute(0));
    assert_eq!(value(&attempts(&registry), &chute(0).to_string()), None);
    chutes.of(chute(MANY)).attempts.inc();
    assert_eq!(value(&attempts(&registry), &chute(MANY).to_string()), Some(1.0));
    gone.attempts.inc();
    assert_eq!(attempts(&registry).get_metric().len(), MOST);
}

#[test]
fn a_chute_that_comes_back_begins_at_nothing() {
    let (registry, chutes) = chutes();
    let before = chutes.of(chute(1));
    before.in_flight.inc();
    chutes.keep(|_| false);
    chutes.of(chute(1)).in_flight.inc();
    before.in_flight.dec();
    let in_flight = registry.gather().into_iter().find(|family| family.name() == PER_CHUTE[0]).unwrap();
    let own = in_flight.get_metric().iter().find(|metric| metric.get_label()[0].value() != OTHER).unwrap();
    assert_eq!(own.get_gauge().get_value(), 1.0);
}
