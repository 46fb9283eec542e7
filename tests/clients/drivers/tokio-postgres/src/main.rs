use std::error::Error;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use futures_util::SinkExt;
use serde_json::json;
use tokio_postgres::types::Json;
use tokio_postgres::{Client, NoTls, Transaction};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

async fn begin<'a>(client: &'a mut Client, context: &serde_json::Value) -> Result<Transaction<'a>> {
    let transaction = client.transaction().await?;
    let set_context = "SELECT bemi.set_context($1::jsonb, true)";
    transaction.execute(set_context, &[&Json(context)]).await?;
    Ok(transaction)
}

fn comment(context: &serde_json::Value) -> String {
    format!("/*Bemi {} Bemi*/", context.to_string().replace('*', "\\u002a"))
}

async fn insert(client: &impl tokio_postgres::GenericClient, task: &str) -> Result<()> {
    let sql = "INSERT INTO todo (task) VALUES ($1)";
    client.execute(sql, &[&task]).await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let url = std::env::var("DATABASE_URL")?;
    let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Clean };
    let manager = Manager::from_config(url.parse()?, NoTls, manager_config);
    let pool = Pool::builder(manager).max_size(1).build()?;

    // Two users, one after the other, on the only connection of the pool.
    let first = {
        let mut client = pool.get().await?;
        let backend = backend(&client).await?;
        let transaction = begin(&mut client, &json!({"user_id": 1})).await?;
        insert(&transaction, "Sleep").await?;
        insert(&transaction, "Eat").await?;
        transaction.commit().await?;
        backend
    };
    let mut client = pool.get().await?;
    assert_eq!(first, backend(&client).await?);
    let transaction = begin(&mut client, &json!({"user_id": 2, "name": "Zoë's \"2nd\" */"})).await?;
    let sql = "UPDATE todo SET is_completed = true WHERE task = 'Sleep'";
    transaction.execute(sql, &[]).await?;
    transaction.commit().await?;

    // What follows a rollback has no context.
    let transaction = begin(&mut client, &json!({"user_id": 3})).await?;
    insert(&transaction, "Lost").await?;
    drop(transaction);
    insert(&**client, "After a rollback").await?;

    // A savepoint that is rolled back puts back the context from before it.
    let mut transaction = begin(&mut client, &json!({"user_id": 4})).await?;
    let savepoint = transaction.savepoint("attempt").await?;
    savepoint.execute("SELECT bemi.merge_context('{\"step\":1}', true)", &[]).await?;
    insert(&savepoint, "Lost").await?;
    savepoint.rollback().await?;
    insert(&transaction, "After a savepoint").await?;
    transaction.commit().await?;

    // COPY, with the context as text instead of serde_json.
    let transaction = client.transaction().await?;
    let context = r#"{"user_id":5}"#;
    let set_context = "SELECT bemi.set_context($1, true)";
    transaction.execute(set_context, &[&context]).await?;
    let sink = transaction.copy_in("COPY todo (task) FROM STDIN").await?;
    futures_util::pin_mut!(sink);
    sink.send(&b"Copied 1\nCopied 2\n"[..]).await?;
    sink.close().await?;
    transaction.commit().await?;

    // A context of the session, which the pool resets when it hands the connection out again.
    let set_context = "SELECT bemi.set_context($1)";
    client.execute(set_context, &[&r#"{"worker":"nightly"}"#]).await?;
    insert(&**client, "Nightly 1").await?;
    insert(&**client, "Nightly 2").await?;
    drop(client);
    let client = pool.get().await?;
    assert_eq!(first, backend(&client).await?);
    insert(&**client, "After the pool").await?;

    // A comment carries the context of one statement that is not kept prepared.
    let comment = comment(&json!({"user_id": 6, "name": "/* Bemi*/ */ $1"}));
    let sql = format!("DELETE FROM todo WHERE task = $1 {comment}");
    client.execute(&sql, &[&"Eat"]).await?;
    Ok(())
}

async fn backend(client: &Client) -> Result<i32> {
    let row = client.query_one("SELECT pg_backend_pid()", &[]).await?;
    Ok(row.get(0))
}
