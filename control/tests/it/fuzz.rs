//! Replays the corpus of the fuzz target, so that what it once found stays found without a fuzzer.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/targets/export.rs"]
mod export;

#[test]
fn no_file_of_the_corpus_breaks_its_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/export");
    let files: Vec<_> = fs::read_dir(corpus).unwrap().collect();
    assert!(files.len() > 3, "the corpus is empty");
    for file in files {
        let path = file.unwrap().path();
        let data = fs::read(&path).unwrap();
        let outcome = std::panic::catch_unwind(|| export::run(&data));
        assert!(outcome.is_ok(), "{} breaks it", path.display());
    }
}
