//! Every stored query fits the migrated database.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Column, Either, Executor, SqlSafeStr, Statement};

use crate::postgres::Database;

#[tokio::test]
async fn every_stored_query_fits_the_migrated_database() {
    let database = Database::new().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    let mut checked = 0;
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let stored: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let query = stored["query"].as_str().unwrap().to_owned();
        let prepared = database.pool.prepare(AssertSqlSafe(query.clone()).into_sql_str()).await;
        let prepared = prepared.unwrap_or_else(|error| panic!("{query}\n{error}"));
        let columns: Vec<Value> =
            prepared.columns().iter().map(|column| json!([column.name(), column.type_info()])).collect();
        let expected = stored["describe"]["columns"].as_array().unwrap().iter();
        let expected: Vec<Value> = expected.map(|column| json!([column["name"], column["type_info"]])).collect();
        assert_eq!(columns, expected, "{query}");
        let parameters = prepared.parameters().and_then(Either::left).map_or(Value::Null, |types| json!(types));
        assert_eq!(parameters, stored["describe"]["parameters"]["Left"], "{query}");
        checked += 1;
    }
    assert!(checked > 0, "no stored queries");
}
