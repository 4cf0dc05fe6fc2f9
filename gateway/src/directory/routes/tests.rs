//! Tests of `routes`.

use protocol::envelope::Generation;
use protocol::ids::ImageId;
use protocol::sealing::SealedKey;
use protocol::signing::Keypair;
use protocol::slug::Slug;

use super::*;

fn key() -> DirectoryKey {
    DirectoryKey::from_hex(&"11".repeat(32)).unwrap()
}

fn chute(name: &str, slug: &str, owner: UserId) -> Chute {
    Chute {
        id: ChuteId::random(),
        name: name.into(),
        slug: Slug::parse(slug).unwrap(),
        owner,
        public: true,
        shares: vec![],
        template: Some(Template::Vllm),
        cords: vec![],
        image: ImageId::random(),
        image_owner: owner,
        model: None,
        price: None,
        concurrency: 1,
        multiplier: 1.0,
        invocations: 0,
        rate_per_minute: None,
        max_concurrent: None,
        maintenance: false,
        instances: vec![],
    }
}

fn instance() -> Instance {
    let id = InstanceId::random();
    Instance {
        id,
        host: "127.0.0.1".into(),
        port: 8000,
        miner_uid: 1,
        hotkey: Keypair::from_seed([1; 32]).hotkey().clone(),
        generation: Generation::Sdk03,
        version: 3,
        key: key().seal(&InstanceKey::from([7; 16]), id, 3),
    }
}

fn directory(chutes: &[Chute], official: &[UserId]) -> Directory {
    let aliases = [("short".to_owned(), "shared/name".to_owned())].into();
    Directory { chutes: chutes.to_vec(), official_users: official.to_vec(), aliases }
}

#[test]
fn a_chute_is_found_by_id_slug_name_and_alias() {
    let owner = UserId::random();
    let chute = chute("shared/name", "a", owner);
    let routes = Routes::build(directory(std::slice::from_ref(&chute), &[]), &key(), None);
    assert_eq!(routes.by_id(chute.id).unwrap().chute, chute);
    assert_eq!(routes.by_slug("a").unwrap().chute, chute);
    for name in ["shared/name", "short"] {
        assert_eq!(routes.by_name(Template::Vllm, name, owner).unwrap().chute, chute);
    }
    assert!(routes.by_name(Template::Embedding, "shared/name", owner).is_none());
    assert!(routes.by_slug("b").is_none());
}

#[test]
fn an_official_chute_wins_its_name_and_an_invisible_one_never_does() {
    let (official, other, stranger) = (UserId::random(), UserId::random(), UserId::random());
    let busy = Chute { invocations: 9, ..chute("shared/name", "busy", other) };
    let ours = chute("shared/name", "ours", official);
    let hidden = Chute { public: false, shares: vec![stranger], ..ours.clone() };
    let routes = Routes::build(directory(&[busy.clone(), ours], &[official]), &key(), None);
    let slug = |routes: &Routes, user| routes.by_name(Template::Vllm, "short", user).unwrap().chute.slug.to_string();
    assert_eq!(slug(&routes, other), "ours");
    let routes = Routes::build(directory(&[busy, hidden], &[official]), &key(), None);
    assert_eq!(slug(&routes, other), "busy");
    assert_eq!(slug(&routes, official), "ours");
    assert_eq!(slug(&routes, stranger), "ours");
}

#[test]
fn an_instance_whose_key_cannot_be_opened_is_left_out() {
    let (good, mut bad) = (instance(), instance());
    bad.key = SealedKey("AAAA".into());
    let bad_id = bad.id;
    let chute = Chute { instances: vec![good.clone(), bad], ..chute("a", "a", UserId::random()) };
    let routes = Routes::build(directory(&[chute], &[]), &key(), None);
    let targets = &routes.by_slug("a").unwrap().instances;
    assert_eq!(targets.len(), 1);
    assert_eq!((targets[0].instance.id, targets[0].key.reveal_hex()), (good.id, "07".repeat(16)));
    assert_eq!(routes.unopened(), 1);
    assert!(routes.has_instance(good.id));
    assert!(!routes.has_instance(bad_id));
}

#[test]
fn what_did_not_change_keeps_its_place_in_memory() {
    let same = Chute { instances: vec![instance()], ..chute("same", "same", UserId::random()) };
    let mut changed =
        Chute { instances: vec![instance(), instance()], ..chute("changed", "changed", UserId::random()) };
    let before = Routes::build(directory(&[same.clone(), changed.clone()], &[]), &key(), None);
    changed.instances[1].port += 1;
    let after = Routes::build(directory(&[same, changed], &[]), &key(), Some(&before));
    let both = |slug| (before.by_slug(slug).unwrap(), after.by_slug(slug).unwrap());
    assert!(Arc::ptr_eq(both("same").0, both("same").1));
    let (old, new) = both("changed");
    assert!(Arc::ptr_eq(&old.instances[0], &new.instances[0]));
    assert!(!Arc::ptr_eq(&old.instances[1], &new.instances[1]));
    assert_eq!(new.instances[1].instance.port, 8001);
}
