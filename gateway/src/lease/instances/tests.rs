//! Tests of `instances`: places are taken, shared with other gateways, and given back.

use super::*;
use crate::lease::stand_in::StandIn;

fn instances(stand_in: &StandIn) -> Arc<Instances> {
    Arc::new(Instances::new(Arc::clone(&stand_in.leases)))
}

#[tokio::test]
async fn an_instance_takes_as_many_calls_as_it_can_and_another_once_one_has_ended() {
    let mut stand_in = StandIn::new();
    let (instances, instance) = (instances(&stand_in), InstanceId::random());
    assert_eq!(instances.places(instance, 2), 2, "nothing is known of it");
    let first = stand_in.serve(&*instances, instances.take(instance, 2)).await;
    let second = stand_in.serve(&*instances, instances.take(instance, 2)).await;
    assert!(first.is_some() && second.is_some());
    assert_eq!(instances.places(instance, 2), 2);
    assert!(stand_in.serve(&*instances, instances.take(instance, 2)).await.is_none());
    drop(first);
    assert!(stand_in.serve(&*instances, instances.take(instance, 2)).await.is_some());
}

#[tokio::test]
async fn what_other_gateways_have_on_an_instance_is_not_taken_here() {
    let mut stand_in = StandIn::new();
    let (instances, instance) = (instances(&stand_in), InstanceId::random());
    stand_in.held_elsewhere(&Subject::Instance(instance), 2);
    let _slot = stand_in.serve(&*instances, instances.take(instance, 3)).await.unwrap();
    assert!(stand_in.serve(&*instances, instances.take(instance, 3)).await.is_none());
    assert_eq!(instances.places(instance, 3), 1);
}

#[tokio::test]
async fn a_place_that_is_ready_is_taken_without_asking() {
    let mut stand_in = StandIn::new();
    let (instances, instance) = (instances(&stand_in), InstanceId::random());
    drop(stand_in.serve(&*instances, instances.take(instance, 9)).await);
    stand_in.answer(&*instances);
    let taken = instances.take(instance, 9).await;
    assert!(taken.is_some());
    let count = |way| stand_in.metrics.limits.decisions.with_label_values(&["instance", way]).get();
    assert_eq!((count("asked"), count("local")), (1, 1));
}

#[tokio::test]
async fn what_is_held_is_surveyed_and_forgotten_once_it_is_given_back() {
    let mut stand_in = StandIn::new();
    let (instances, instance) = (instances(&stand_in), InstanceId::random());
    let slot = stand_in.serve(&*instances, instances.take(instance, 9)).await;
    stand_in.answer(&*instances);
    let survey = |all| {
        let mut survey = Survey::default();
        instances.survey(all, stand_in.leases.moment(), &mut survey);
        survey
    };
    let found = survey(true);
    assert_eq!((found.due, found.used), (vec![Subject::Instance(instance)], 1));
    assert!(found.ready > 0);
    assert!(survey(false).due.is_empty());
    drop(slot);
    instances.sweep();
    assert_eq!(instances.held.len(), 1, "redis does not know yet that it is free");
    instances.close();
    assert_eq!(survey(true).ready, 0);
    assert!(stand_in.leases.nudge(Subject::Instance(instance)));
    stand_in.answer(&*instances);
    instances.sweep();
    assert!(instances.held.is_empty());
}

#[tokio::test]
async fn places_kept_ready_lapse_and_are_asked_for_anew() {
    let mut stand_in = StandIn::new();
    let (instances, instance) = (instances(&stand_in), InstanceId::random());
    let _slot = stand_in.serve(&*instances, instances.take(instance, 9)).await;
    stand_in.answer(&*instances);
    let free = || instances.held.get(&instance).unwrap().slots.holding().free();
    assert!(free() > 0);
    instances.lapse();
    assert_eq!(free(), 0);
}

#[tokio::test]
async fn a_question_without_an_answer_is_asked_again() {
    let stand_in = StandIn::new();
    let (instances, instance) = (instances(&stand_in), InstanceId::random());
    let moment = stand_in.leases.moment();
    assert_eq!(instances.try_take(instance, 2, moment), Verdict::Ask);
    let asked = instances.ask(&Subject::Instance(instance), 1, moment).unwrap();
    assert_eq!((asked.limit, asked.need), (2, 1));
    let mut survey = Survey::default();
    instances.survey(false, moment, &mut survey);
    assert!(survey.due.is_empty(), "it is on its way");
    instances.answer(&Subject::Instance(instance), &asked, None, moment);
    instances.survey(false, moment, &mut survey);
    assert_eq!(survey.due, [Subject::Instance(instance)]);
}
