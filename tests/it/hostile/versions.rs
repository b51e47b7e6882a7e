//! Hostile values in the tables of migrations: a program starts, or refuses with a message.

use std::process::Command;

use super::values::{ODD, quoted};
use crate::sinks::fixture::each_exact;

/// What is done to the row of the latest version, and whether podlog works with it.
fn changes(sqlite: bool) -> Vec<(String, bool)> {
    let no_text = if sqlite { "CAST(x'fffe00ff' AS TEXT)" } else { "''" };
    // What every server's column can hold.
    let odd: String = ODD.chars().filter(char::is_ascii).collect();
    let odd = quoted(&odd);
    let mut all = vec![
        (format!("description = {odd}"), true),
        (format!("description = {no_text}"), !sqlite),
        ("execution_time = -9223372036854775807 - 1".into(), true),
        // Only `podlog check` reports it: a development version created the same tables from another text.
        ("checksum = x''".into(), true),
        ("checksum = x'fffe00ff'".into(), true),
        ("success = 0".into(), false),
        ("version = 9223372036854775807".into(), false),
        (format!("version = 9223372036854775807, description = {odd}"), false),
        ("version = -9223372036854775807 - 1".into(), false),
        ("version = 0".into(), false),
    ];
    if sqlite {
        all.extend(
            [
                "version = 'many'",
                "version = x'ff'",
                "success = 'maybe'",
                "checksum = 7.5",
            ]
            .map(|s| (s.into(), false)),
        );
    }
    all
}

#[tokio::test]
async fn an_impossible_table_version_is_refused_on_one_line_or_does_no_harm() {
    each_exact(async |database| {
        podlog::locks::migrate(&database.url.parse().unwrap()).await.unwrap();
        database
            .sql("CREATE TABLE aside AS SELECT * FROM podlog_locks_migrations")
            .await;
        for (change, works) in changes(database.name == "sqlite") {
            database
                .sql(&format!(
                    "UPDATE podlog_locks_migrations SET {change} WHERE version = (SELECT MAX(version) FROM aside)"
                ))
                .await;
            let output = Command::new(env!("CARGO_BIN_EXE_podlog"))
                .args(["locks", "list", "--lock", &database.url])
                .output()
                .unwrap();
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            println!("{change}: {:?} {said}", output.status.code());
            assert_eq!(output.status.success(), works, "{change}: {said}");
            assert!(works || said.lines().count() == 1, "{change}: {said}");
            assert!(!said.contains("panicked"), "{said}");
            assert!(!said.lines().any(|line| line.chars().any(char::is_control)), "{said}");
            database.sql("DELETE FROM podlog_locks_migrations").await;
            database
                .sql("INSERT INTO podlog_locks_migrations SELECT * FROM aside")
                .await;
        }
    })
    .await;
}
