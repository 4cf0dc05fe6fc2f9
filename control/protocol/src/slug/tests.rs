//! Tests of `slug`: the recipe against python-slugify 8.0.4, the parser against a table.

use super::*;

#[test]
fn names_give_the_slugs_that_python_gives() {
    let long = "x".repeat(80);
    let base = "x".repeat(53);
    let vectors = [
        ("Jon", "unsloth/Llama-3.2-3B-Instruct", "jon-unsloth-llama-3-2-3b-instruct"),
        ("a_b", &long, &format!("a-b-{}", "x".repeat(54))),
        ("chutes", "deepseek-ai/DeepSeek-R1-0528", "chutes-deepseek-ai-deepseek-r1-0528"),
        ("user", "Qwen/Qwen2.5-VL-72B-Instruct", "user-qwen-qwen2-5-vl-72b-instruct"),
        ("___", "org/a", "org-a"),
        ("-a-", "b--c", "a-b-c"),
        ("A-B_", "_x_", "a-b-x"),
        ("user", "a//b..c__d", "user-a-b-c-d"),
        ("user", &format!("{base}-yz"), &format!("user-{base}")),
        ("user", &format!("{base}.yz"), &format!("user-{base}")),
        ("user", "it's", "user-it-s"),
        ("user", "it\u{2019}s", "user-its"),
        ("user", "\u{201c}quoted\u{201d}", "user-quoted"),
        ("user", "1,000,000", "user-1000000"),
        ("user", "1, 2", "user-1-2"),
        ("user", "10.5,3", "user-10-53"),
        ("user", "a & b", "user-a-b"),
        ("user", "a\u{2013}b\u{2014}c", "user-a-b-c"),
        ("user", "l'été à Zürich", "user-l-ete-a-zurich"),
        ("user", "naïve café", "user-naive-cafe"),
        ("user", "Straße", "user-strasse"),
        ("user", "smørrebrød", "user-smorrebrod"),
        ("user", "Łódź", "user-lodz"),
        ("user", "Привет мир", "user-privet-mir"),
        ("user", "Ærøskøbing", "user-aeroskobing"),
        ("user", "Σίσυφος", "user-sisuphos"),
        ("user", "你好", "user-ni-hao"),
        ("user", "日本語", "user-ri-ben-yu"),
        ("user", "£5 ½", "user-ps5-1-2"),
        ("user", "™ ©", "user-tm-c"),
    ];
    for (username, name, slug) in vectors {
        assert_eq!(Slug::of_name(username, name).as_str(), slug, "{username} {name}");
    }
}

#[test]
fn a_name_without_letters_still_has_a_slug() {
    assert_eq!(Slug::of_name("___", "/").as_str(), "chute");
}

#[test]
fn only_labels_are_slugs() {
    let longest = "x".repeat(63);
    for text in ["a", "a-b", "a--b", "0", longest.as_str()] {
        assert_eq!(Slug::parse(text).unwrap().as_str(), text);
    }
    let too_long = "x".repeat(64);
    for text in ["", "-", "-a", "a-", "A", "a.b", "a_b", "é", "a b", "a\n", too_long.as_str()] {
        assert_eq!(Slug::parse(text), Err(InvalidSlug), "{text}");
    }
}

#[test]
fn a_suffix_always_fits_the_label() {
    let short = Slug::of_name("jon", "llama").with_suffix("x4f9a").unwrap();
    assert_eq!(short.as_str(), "jon-llama-x4f9a");
    let long = Slug::of_name("a_b", &"x".repeat(80)).with_suffix("x4f9a").unwrap();
    assert_eq!(long.as_str(), format!("a-b-{}-x4f9a", "x".repeat(53)));
    assert_eq!(long.as_str().len(), Slug::MAX_LENGTH);
}

#[test]
fn a_suffix_that_is_no_label_is_refused() {
    let slug = Slug::parse("a").unwrap();
    for suffix in ["", "-", "X", "a.b", &"x".repeat(62), &"x".repeat(63)] {
        assert_eq!(slug.with_suffix(suffix), Err(InvalidSlug), "{suffix}");
    }
}

#[test]
fn json_is_validated() {
    let slug: Slug = serde_json::from_str("\"a-b\"").unwrap();
    assert_eq!(serde_json::to_string(&slug).unwrap(), "\"a-b\"");
    assert!(serde_json::from_str::<Slug>("\"A\"").is_err());
}

proptest::proptest! {
    #[test]
    fn every_name_gives_a_slug(username: String, name: String) {
        let slug = Slug::of_name(&username, &name);
        assert_eq!(Slug::parse(slug.as_str()), Ok(slug.clone()));
        assert!(slug.as_str().len() <= 58);
    }
}
