//! Replays the corpora of the fuzz targets, so that what they once found stays found without a fuzzer.

use std::fs;
use std::path::Path;

#[path = "../../fuzz/targets/all.rs"]
mod targets;

#[test]
fn no_file_of_a_corpus_breaks_its_target() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, run) in targets::ALL {
        let files: Vec<_> = fs::read_dir(corpora.join(name)).unwrap().collect();
        assert!(files.len() > 3, "the corpus of {name} is empty");
        for file in files {
            let path = file.unwrap().path();
            let data = fs::read(&path).unwrap();
            let outcome = std::panic::catch_unwind(|| run(&data));
            assert!(outcome.is_ok(), "{} breaks {name}", path.display());
        }
    }
}
