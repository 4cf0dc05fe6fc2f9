//! The scripts do in a real Redis what their model says.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use protocol::ids::WriterId;
use protocol::keys::Key;
use protocol::lease::claims::{Claims, Heard};
use protocol::lease::{Ask, script};
use uuid::Uuid;

use crate::redis_server::RedisServer;

const POOLS: u8 = 3;

#[derive(Clone, Debug)]
enum Step {
    Pass(i64),
    Beat(u128),
    /// Questions of one gateway about some pools, with a sequence that may be an old one.
    Ask {
        gateway: u128,
        sequence: u64,
        gateways: u32,
        asks: Vec<(u8, Ask)>,
    },
    Flush,
    Restart,
}

fn ask() -> impl Strategy<Value = Ask> {
    let numbers = (0..20_u64, 0..10_u64, 0..30_u64, 0..60_u64, 0..10_u64);
    let waits = (prop::option::of(0..70_000_u64), prop_oneof![Just(0), Just(61_000), Just(3_600_000)]);
    (numbers, waits).prop_map(|((must, need, spare, limit, base), (next, linger))| Ask {
        must,
        need,
        spare,
        limit,
        base,
        next,
        linger,
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let asks = prop::collection::btree_map(0..POOLS, ask(), 1..=POOLS as usize);
    let step = prop_oneof![
        6 => prop_oneof![0..3_000_i64, 0..100_000_i64, Just(-500)].prop_map(Step::Pass),
        4 => (0..4_u128).prop_map(Step::Beat),
        10 => (0..4_u128, 1..40_u64, 0..5_u32, asks).prop_map(|(gateway, sequence, gateways, asks)| {
            Step::Ask { gateway, sequence, gateways, asks: asks.into_iter().collect() }
        }),
        1 => Just(Step::Flush),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

fn key(pool: u8) -> Key {
    Key::instance_lease(protocol::ids::InstanceId(Uuid::from_u128(pool.into())))
}

fn beat(redis: &mut redis::Connection, run: &str, gateway: WriterId, now: i64) -> Heard {
    let mut command = redis::cmd("EVAL");
    command.arg(script::beat(Some(now))).arg(2).arg(Key::lease_beats().as_str()).arg(Key::lease_since(run).as_str());
    command.arg(gateway.to_string()).arg(&script::beat_arguments());
    let (known, age, alive): (bool, u64, Vec<String>) = command.query(redis).unwrap();
    let mut alive: Vec<WriterId> = alive.iter().map(|gateway| gateway.parse().unwrap()).collect();
    alive.sort();
    Heard { known, age, alive }
}

#[test]
fn redis_answers_as_the_model_says() {
    let server = RedisServer::start();
    let redis = RefCell::new(server.connection());
    let mut runner = TestRunner::new(Config { cases: 60, failure_persistence: None, ..Config::default() });
    let shows = |steps: Vec<Step>| {
        let mut redis = redis.borrow_mut();
        redis::cmd("FLUSHALL").exec(&mut *redis).unwrap();
        let (mut model, mut now) = (Claims::<u8>::default(), 1_700_000_000_000_i64);
        let mut run = "first".to_owned();
        for step in steps {
            match step {
                Step::Pass(millis) => now += millis,
                Step::Beat(gateway) => {
                    let gateway = WriterId(Uuid::from_u128(gateway));
                    prop_assert_eq!(beat(&mut redis, &run, gateway, now), model.beat(gateway, now));
                }
                Step::Ask { gateway, sequence, gateways, asks } => {
                    let gateway = WriterId(Uuid::from_u128(gateway));
                    let questions: Vec<Ask> = asks.iter().map(|(_, ask)| *ask).collect();
                    let mut command = redis::cmd("EVAL");
                    command.arg(script::ask(Some(now))).arg(2 + asks.len());
                    command.arg(Key::lease_beats().as_str()).arg(Key::lease_since(&run).as_str());
                    for (pool, _) in &asks {
                        command.arg(key(*pool).as_str());
                    }
                    command.arg(gateway.to_string()).arg(script::ask_arguments(sequence, gateways, &questions));
                    let returned: Vec<i64> = command.query(&mut *redis).unwrap();
                    let (settled, answers) = script::answers(&returned).unwrap();
                    for ((pool, ask), answer) in asks.iter().zip(answers) {
                        let expected = model.ask(*pool, gateway, sequence, gateways, ask, now);
                        prop_assert_eq!((settled, answer), expected);
                    }
                }
                Step::Flush => {
                    redis::cmd("FLUSHALL").exec(&mut *redis).unwrap();
                    model.flush();
                }
                Step::Restart => {
                    run.push('x');
                    model.restart();
                }
            }
        }
        Ok(())
    };
    runner.run(&steps(), shows).unwrap();
}
