//! The three commands that a fresh platform prints work as they are printed.

use std::time::Duration;

use stack::children::{Launch, run};
use stack::local::commands;
use tokio::time::{Instant, sleep};

use crate::scene::Scene;

const LONGEST: Duration = Duration::from_secs(40);

/// Types a command into a shell; what it prints.
async fn typed(command: &str) -> String {
    run(&Launch::new("bash", "bash").arguments(["-c", command]), LONGEST).await.unwrap()
}

#[tokio::test]
async fn the_three_printed_commands_work_as_printed() {
    let mut scene = Scene::start().await;
    let [curl, python, record] = commands(&scene.platform.describe().unwrap());
    let streamed = typed(&curl).await;
    assert!(streamed.starts_with("data: {") && streamed.trim_end().ends_with("data: [DONE]"), "{streamed}");
    let said = typed(&python).await;
    assert!(said.split_whitespace().count() > 3, "{said}");
    let deadline = Instant::now() + LONGEST;
    loop {
        let rows = typed(&record).await;
        assert!(rows.starts_with("invocation_id,chute_id,"), "{rows}");
        if rows.matches(",chat_stream,").count() == 2 {
            break;
        }
        assert!(Instant::now() < deadline, "the two calls are not in the record: {rows}");
        sleep(Duration::from_millis(200)).await;
    }
}
