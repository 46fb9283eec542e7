//! The queries of the section "Questions you can ask" of docs/past.md, as they stand there.
use std::collections::BTreeMap;

use postgres::{Client, SimpleQueryMessage};

use crate::Test;
use crate::server::{Server, run};

pub const TESTS: &[Test] = &[("the_questions_of_the_page_past_have_the_answers_that_they_promise", questions)];

/// The times that the page names.
const MONDAY: &str = "2026-11-16 09:00+00";
const FRIDAY: &str = "2026-11-20 11:00+00";

/// The statements under each question.
fn statements() -> BTreeMap<String, Vec<String>> {
    let page = include_str!("../../docs/past.md");
    let section = page.split("\n## Questions you can ask\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut found = BTreeMap::new();
    for part in section.split("\n**").skip(1) {
        let (question, rest) = part.split_once("**").unwrap();
        let sql = rest.split("```sql\n").nth(1).unwrap().split("```").next().unwrap();
        let statements = sql.split(";\n").map(str::trim).filter(|statement| !statement.is_empty());
        found.insert(question.to_owned(), statements.map(str::to_owned).collect());
    }
    found
}

/// The rows of an answer, values separated by bars.
fn rows(client: &mut Client, statement: &str) -> Vec<String> {
    let messages = client.simple_query(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            let values = (0..row.len()).map(|index| row.get(index).unwrap_or(""));
            Some(values.collect::<Vec<_>>().join("|"))
        }
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

fn now(client: &mut Client) -> String {
    client.query_one("SELECT clock_timestamp()::text", &[]).unwrap().get(0)
}

/// A request, with its context.
fn request(client: &mut Client, context: &str, statements: &str) {
    client
        .batch_execute(&format!("BEGIN; SELECT bemi.set_context('{context}', true); {statements}; COMMIT"))
        .unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

/// Runs what an application does in a week. Returns the two times that the page names, with when they were.
pub fn fixture(client: &mut Client) -> Vec<(&'static str, String)> {
    run(
        client,
        "SELECT bemi.track_all(); SELECT bemi.start(); \
         CREATE TABLE users (id int PRIMARY KEY, email text); \
         CREATE TABLE products (id int PRIMARY KEY, price numeric); \
         CREATE TABLE orders (id int PRIMARY KEY, product_id int REFERENCES products, \
         ordered_at timestamptz DEFAULT clock_timestamp()); \
         CREATE TABLE todo (id int PRIMARY KEY, task text, is_completed boolean DEFAULT false)",
    );
    let ana = r#"{"user_id":187234,"request_id":"r-1"}"#;
    request(
        client,
        ana,
        "INSERT INTO users VALUES (7, 'ana@old.example'); INSERT INTO products VALUES (1, 10); \
         INSERT INTO todo VALUES (3, 'Eat', false), (26, 'Sleep', false), (27, 'Repeat', true)",
    );
    let monday = now(client);
    request(client, r#"{"user_id":187234,"request_id":"r-41"}"#, "INSERT INTO orders VALUES (1, 1)");
    request(
        client,
        r#"{"user_id":42,"request_id":"r-42"}"#,
        "UPDATE users SET email = 'ana@new.example' WHERE id = 7; UPDATE todo SET is_completed = true WHERE id = 26",
    );
    client.batch_execute("UPDATE products SET price = 12").unwrap();
    let friday = now(client);
    request(client, r#"{"user_id":42,"request_id":"r-43"}"#, "DELETE FROM todo WHERE id = 3");
    request(
        client,
        r#"{"job":"import-7"}"#,
        "UPDATE products SET price = 0; INSERT INTO products VALUES (2, 0); DELETE FROM todo WHERE id = 27",
    );
    run(client, "SELECT bemi.sync()");
    vec![(MONDAY, monday), (FRIDAY, friday)]
}

fn questions(server: &Server) {
    let database = server.database("questions");
    let mut client = database.connect();
    let times = fixture(&mut client);
    let statements = statements();
    let mut asked = 0;
    let mut ask = |client: &mut Client, question: &str| -> Vec<Vec<String>> {
        asked += 1;
        let statements = statements.get(question).unwrap_or_else(|| panic!("no question is {question:?}"));
        let at = |statement: &String, (named, time): &(&str, String)| statement.replace(named, time);
        let timed = statements
            .iter()
            .map(|statement| times.iter().fold(statement.clone(), |statement, time| at(&statement, time)));
        timed.map(|statement| rows(client, &statement)).collect()
    };
    /// The values of some columns of rows.
    fn columns(rows: &[String], wanted: &[usize]) -> Vec<String> {
        let pick = |row: &String| {
            let values: Vec<&str> = row.split('|').collect();
            wanted.iter().map(|index| values[*index]).collect::<Vec<_>>().join("|")
        };
        rows.iter().map(pick).collect()
    }

    let answer = ask(&mut client, "Who changed this e-mail address?");
    assert_eq!(
        columns(&answer[0], &[1, 2]),
        [r#"187234|[null, "ana@old.example"]"#, r#"42|["ana@old.example", "ana@new.example"]"#]
    );
    let answer = ask(&mut client, "What did this request do?");
    assert_eq!(
        answer[0],
        [
            r#"users|UPDATE|7|{"email": ["ana@old.example", "ana@new.example"]}"#,
            r#"todo|UPDATE|26|{"is_completed": [false, true]}"#
        ]
    );
    let answer = ask(&mut client, "What changed between two deployments?");
    assert_eq!(answer[0], ["orders|CREATE|1", "products|UPDATE|1", "todo|UPDATE|1", "users|UPDATE|1"]);
    let answer = ask(&mut client, "Who deleted it, and what was in it?");
    assert_eq!(
        columns(&answer[0], &[1, 2]),
        [r#"{"user_id": 42, "request_id": "r-43"}|{"id": 3, "task": "Eat", "is_completed": false}"#]
    );
    let answer = ask(&mut client, "What was on the list on Monday?");
    assert_eq!(answer[0], ["3|Eat|f", "26|Sleep|f"]);
    let answer = ask(&mut client, "What did it cost when it was ordered?");
    assert_eq!(answer[0], ["1|10|0"]);
    let answer = ask(&mut client, "What happened to this row?");
    assert_eq!(columns(&answer[0], &[0, 1, 4]), ["2|UPDATE|42", "1|CREATE|187234"]);
    assert!(columns(&answer[0], &[3])[0].is_empty() && columns(&answer[0], &[3])[1] == columns(&answer[0], &[2])[0]);
    let answer = ask(&mut client, "Which rows did a user change this month?");
    assert_eq!(answer[0], ["orders|1|1", "products|1|1", "todo|26|1", "todo|27|1", "todo|3|1", "users|7|1"]);
    let answer = ask(&mut client, "What was changed without a context, by hand or by somebody who forgot it?");
    assert_eq!(columns(&answer[0], &[0, 1, 2]), ["products|UPDATE|1"]);
    let answer = ask(&mut client, "What would undo this bad batch? And undo it.");
    assert_eq!(answer[0].len(), 3);
    assert!(
        answer[0][0].starts_with("INSERT INTO public.todo") && answer[0][1].starts_with("DELETE FROM public.products")
    );
    assert_eq!(answer[1], ["DELETE|27|reverted", "CREATE|2|reverted", "UPDATE|1|reverted"]);
    assert_eq!(rows(&mut client, "SELECT * FROM products"), ["1|12"]);
    ask(&mut client, "How do I get one deleted row back?");
    assert_eq!(rows(&mut client, "SELECT * FROM todo ORDER BY id"), ["3|Eat|f", "26|Sleep|t", "27|Repeat|t"]);
    assert_eq!(asked, statements.len());
    client.batch_execute("SELECT bemi.stop(drop_slot => true)").unwrap();
}
