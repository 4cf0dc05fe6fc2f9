//! The three commands that a fresh platform prints work as they are printed.

use std::time::Duration;

use stack::children::{Launch, run};
use stack::local::commands;
use tokio::time::{Instant, sleep};

use crate::scene::Scene;
use crate::scripts::Sdk;

const LONGEST: Duration = Duration::from_secs(40);

/// Types a command into a shell whose `python3` has the OpenAI client; what it prints.
async fn typed(command: &str, python: &str) -> String {
    let path = format!("export PATH={python}:$PATH; {command}");
    run(&Launch::new("bash", "bash").arguments(["-c", &path]), LONGEST).await.unwrap()
}

#[tokio::test]
async fn the_three_printed_commands_work_as_printed() {
    let mut scene = Scene::start().await;
    let [curl, python, record] = commands(&scene.platform.describe().unwrap());
    let folder = Sdk::new().await.folder();
    let streamed = typed(&curl, &folder).await;
    assert!(streamed.starts_with("data: {") && streamed.trim_end().ends_with("data: [DONE]"), "{streamed}");
    let said = typed(&python, &folder).await;
    assert!(said.split_whitespace().count() > 3, "{said}");
    let deadline = Instant::now() + LONGEST;
    loop {
        let rows = typed(&record, &folder).await;
        assert!(rows.starts_with("invocation_id,chute_id,"), "{rows}");
        if rows.matches(",chat_stream,").count() == 2 {
            break;
        }
        assert!(Instant::now() < deadline, "the two calls are not in the record: {rows}");
        sleep(Duration::from_millis(200)).await;
    }
}
