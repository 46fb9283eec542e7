package main

import (
	"context"
	"encoding/json"
	"errors"
	"log"
	"os"
	"strings"

	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

func withContext(ctx context.Context, pool *pgxpool.Pool, values map[string]any, work func(pgx.Tx) error) error {
	tx, err := pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx, "SELECT bemi.set_context($1::jsonb, true)", values); err != nil {
		return err
	}
	if err := work(tx); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

func connect(ctx context.Context, url string, hook func(*pgxpool.Config)) *pgxpool.Pool {
	config, err := pgxpool.ParseConfig(url)
	check(err)
	config.MaxConns = 1
	hook(config)
	pool, err := pgxpool.ConnectConfig(ctx, config)
	check(err)
	return pool
}

func resetAfterRelease(config *pgxpool.Config) {
	config.AfterRelease = func(conn *pgx.Conn) bool {
		_, err := conn.Exec(context.Background(), "RESET bemi.context")
		return err == nil
	}
}

func comment(values map[string]any) (string, error) {
	text, err := json.Marshal(values)
	escaped := strings.NewReplacer("*", `\u002a`, "$", `\u0024`).Replace(string(text))
	return "/*Bemi " + escaped + " Bemi*/", err
}

const insert = "INSERT INTO todo (task) VALUES ($1)"

func main() {
	ctx := context.Background()
	url := os.Getenv("DATABASE_URL")
	pool := connect(ctx, url, func(*pgxpool.Config) {})
	defer pool.Close()
	first := backend(ctx, pool)

	// Two users, one after the other, on the only connection of the pool.
	check(withContext(ctx, pool, map[string]any{"user_id": 1}, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		batch.Queue(insert, "Sleep")
		batch.Queue(insert, "Eat")
		return tx.SendBatch(ctx, batch).Close()
	}))
	second := map[string]any{"user_id": 2, "name": "Zoë's \"2nd\" */"}
	check(withContext(ctx, pool, second, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE todo SET is_completed = true WHERE task = $1", "Sleep")
		return err
	}))

	// What follows a rollback has no context.
	rolledBack := errors.New("rolled back")
	err := withContext(ctx, pool, map[string]any{"user_id": 3}, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, insert, "Lost")
		check(err)
		return rolledBack
	})
	if err != rolledBack {
		log.Fatal("not rolled back: ", err)
	}
	_, err = pool.Exec(ctx, insert, "After a rollback")
	check(err)

	// A savepoint that is rolled back puts back the context from before it.
	check(withContext(ctx, pool, map[string]any{"user_id": 4}, func(tx pgx.Tx) error {
		savepoint, err := tx.Begin(ctx)
		check(err)
		_, err = savepoint.Exec(ctx, "SELECT bemi.merge_context($1, true)", `{"step":1}`)
		check(err)
		_, err = savepoint.Exec(ctx, insert, "Lost")
		check(err)
		check(savepoint.Rollback(ctx))
		_, err = tx.Exec(ctx, insert, "After a savepoint")
		return err
	}))

	// COPY.
	check(withContext(ctx, pool, map[string]any{"user_id": 5}, func(tx pgx.Tx) error {
		rows := [][]any{{"Copied 1"}, {"Copied 2"}}
		_, err := tx.CopyFrom(ctx, pgx.Identifier{"todo"}, []string{"task"}, pgx.CopyFromRows(rows))
		return err
	}))

	// A context of the session, which the hook resets.
	sessions := connect(ctx, url, resetAfterRelease)
	defer sessions.Close()
	conn, err := sessions.Acquire(ctx)
	check(err)
	same := backend(ctx, conn)
	_, err = conn.Exec(ctx, "SELECT bemi.set_context($1)", `{"worker":"nightly"}`)
	check(err)
	_, err = conn.Exec(ctx, insert, "Nightly 1")
	check(err)
	_, err = conn.Exec(ctx, insert, "Nightly 2")
	check(err)
	conn.Release()
	_, err = sessions.Exec(ctx, insert, "After the pool")
	check(err)

	// A comment carries the context of one statement that is not kept prepared.
	sixth, err := comment(map[string]any{"user_id": 6, "name": `/* Bemi*/ */ "$1 $2 '`})
	check(err)
	_, err = pool.Exec(ctx, "DELETE FROM todo WHERE task = $1 "+sixth, pgx.QuerySimpleProtocol(true), "Eat")
	check(err)

	if backend(ctx, pool) != first || backend(ctx, sessions) != same {
		log.Fatal("another connection")
	}
}

type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

func backend(ctx context.Context, on querier) (pid int) {
	check(on.QueryRow(ctx, "SELECT pg_backend_pid()").Scan(&pid))
	return pid
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
