use std::error::Error;

use serde_json::json;
use sqlx::postgres::{PgConnection, PgPool, PgPoolOptions, Postgres};
use sqlx::types::Json;
use sqlx::{Acquire, Executor, Transaction};

async fn begin<'a>(pool: &PgPool, context: serde_json::Value) -> sqlx::Result<Transaction<'a, Postgres>> {
    let mut transaction = pool.begin().await?;
    sqlx::query("SELECT bemi.set_context($1, true)").bind(Json(context)).execute(&mut *transaction).await?;
    Ok(transaction)
}

async fn insert(connection: &mut PgConnection, task: &str) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO todo (task) VALUES ($1)").bind(task).execute(connection).await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let pool = PgPoolOptions::new().max_connections(1).connect(&url).await?;
    let first = backend(&pool).await?;

    // Two users, one after the other, on the only connection of the pool.
    let mut transaction = begin(&pool, json!({"user_id": 1})).await?;
    insert(&mut transaction, "Sleep").await?;
    insert(&mut transaction, "Eat").await?;
    transaction.commit().await?;
    let mut transaction = begin(&pool, json!({"user_id": 2, "name": "Zoë's \"2nd\" */"})).await?;
    sqlx::query("UPDATE todo SET is_completed = true WHERE task = 'Sleep'").execute(&mut *transaction).await?;
    transaction.commit().await?;

    // What follows a rollback has no context.
    let mut transaction = begin(&pool, json!({"user_id": 3})).await?;
    insert(&mut transaction, "Lost").await?;
    drop(transaction);
    insert(&mut *pool.acquire().await?, "After a rollback").await?;

    // A savepoint that is rolled back puts back the context from before it.
    let mut transaction = begin(&pool, json!({"user_id": 4})).await?;
    let mut savepoint = transaction.begin().await?;
    sqlx::query("SELECT bemi.merge_context($1, true)").bind(r#"{"step":1}"#).execute(&mut *savepoint).await?;
    insert(&mut savepoint, "Lost").await?;
    savepoint.rollback().await?;
    insert(&mut transaction, "After a savepoint").await?;
    transaction.commit().await?;

    // COPY.
    let mut transaction = begin(&pool, json!({"user_id": 5})).await?;
    let mut copy = transaction.copy_in_raw("COPY todo (task) FROM STDIN").await?;
    copy.send(&b"Copied 1\nCopied 2\n"[..]).await?;
    copy.finish().await?;
    transaction.commit().await?;

    // A context of the session, which the hook resets.
    let sessions = PgPoolOptions::new()
        .max_connections(1)
        .after_release(|connection, _meta| {
            Box::pin(async move {
                connection.execute("RESET bemi.context").await?;
                Ok(true)
            })
        })
        .connect(&url)
        .await?;
    let same = backend(&sessions).await?;
    let mut connection = sessions.acquire().await?;
    sqlx::query("SELECT bemi.set_context($1)")
        .bind(Json(json!({"worker": "nightly"})))
        .execute(&mut *connection)
        .await?;
    insert(&mut connection, "Nightly 1").await?;
    insert(&mut connection, "Nightly 2").await?;
    drop(connection);
    insert(&mut *sessions.acquire().await?, "After the pool").await?;

    // A comment carries the context of one statement that is not kept prepared.
    let name = "/* Bemi*/ */ $1 ?";
    let context = json!({"user_id": 6, "name": name}).to_string().replace('*', "\\u002a");
    let sql = format!("DELETE FROM todo WHERE task = $1 /*Bemi {context} Bemi*/");
    sqlx::query(sqlx::AssertSqlSafe(sql)).persistent(false).bind("Eat").execute(&pool).await?;
    assert_eq!([first, same], [backend(&pool).await?, backend(&sessions).await?]);
    Ok(())
}

async fn backend(pool: &PgPool) -> sqlx::Result<i32> {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(pool).await
}
