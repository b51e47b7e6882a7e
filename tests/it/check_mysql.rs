//! `podlog check` against MySQL and MariaDB: it names each missing privilege on each table, and other problems of a
//! server.

use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use sqlx::{AssertSqlSafe, Connection, Executor, MySqlConnection};

use crate::check::{CheckFixture, closed};

/// Every privilege that a replica with `--retain` needs, and the check that names it.
const RIGHTS: [(&str, &str, &str); 16] = [
    ("Select", "podlog_locks_migrations", "lock store: tables"),
    ("Select", "distributed_lock", "lock store: SELECT on distributed_lock"),
    ("Insert", "distributed_lock", "lock store: INSERT on distributed_lock"),
    ("Update", "distributed_lock", "lock store: UPDATE on distributed_lock"),
    ("Delete", "distributed_lock", "lock store: DELETE on distributed_lock"),
    ("Select", "podlog_records_migrations", "sink: tables"),
    ("Select", "log_stream", "sink: SELECT on log_stream"),
    ("Insert", "log_stream", "sink: INSERT on log_stream"),
    ("Update", "log_stream", "sink: UPDATE on log_stream"),
    ("Delete", "log_stream", "sink: DELETE on log_stream"),
    ("Insert", "log_record", "sink: INSERT on log_record"),
    ("Select", "log_record", "sink: SELECT on log_record"),
    ("Delete", "log_record", "sink: DELETE on log_record"),
    ("Select", "log_gap", "sink: SELECT on log_gap"),
    ("Insert", "log_gap", "sink: INSERT on log_gap"),
    ("Update", "log_gap", "sink: UPDATE on log_gap"),
];

/// A database of its own, with tables, and a user who may log in and nothing else.
struct CheckDatabase {
    admin: url::Url,
    name: String,
    fixture: CheckFixture,
}

async fn execute(conn: &mut MySqlConnection, statement: &str) {
    let done = conn.execute(AssertSqlSafe(statement.to_owned())).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// Runs a test on a server, if there is one, and removes the database and the user also when the test fails.
async fn on(variable: &str, test: impl AsyncFn(&CheckDatabase)) {
    let Some(url) = crate::servers::named(variable) else {
        return;
    };
    let name = format!("podlog_check_{:08x}", fastrand::u32(..));
    let server = CheckDatabase {
        admin: url.parse().unwrap(),
        name,
        fixture: CheckFixture::new().await,
    };
    let mut conn = server.conn().await;
    execute(&mut conn, &format!("CREATE DATABASE {}", server.name)).await;
    execute(
        &mut conn,
        &format!("CREATE USER '{}'@'%' IDENTIFIED BY 'hunter2'", server.name),
    )
    .await;
    let outcome = AssertUnwindSafe(async {
        let url = server.url(None);
        let places = [("PODLOG_LOCK", &*url), ("PODLOG_SINK", &*url)];
        assert_eq!(server.fixture.podlog(&["migrate"], &places).await.0, 0);
        test(&server).await;
    })
    .catch_unwind()
    .await;
    let mut conn = server.conn().await;
    execute(&mut conn, &format!("DROP USER '{}'@'%'", server.name)).await;
    execute(&mut conn, &format!("DROP DATABASE {}", server.name)).await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

impl CheckDatabase {
    async fn conn(&self) -> MySqlConnection {
        MySqlConnection::connect(self.admin.as_str()).await.unwrap()
    }

    /// The URL of the database, as the test's user or as one with a password of its own.
    fn url(&self, user: Option<&str>) -> String {
        let mut url = self.admin.clone();
        url.set_path(&self.name);
        if let Some(user) = user {
            url.set_username(user).unwrap();
            url.set_password(Some("hunter2")).unwrap();
        }
        url.to_string()
    }

    /// Gives the user exactly these privileges. It writes the rows that GRANT would write, because the tests' user may
    /// not grant.
    async fn grant(&self, rights: impl Iterator<Item = (&str, &str)> + Clone) {
        let (mut conn, user) = (self.conn().await, &self.name);
        execute(
            &mut conn,
            &format!("DELETE FROM mysql.tables_priv WHERE User = '{user}'"),
        )
        .await;
        let mut tables: Vec<&str> = rights.clone().map(|(_, table)| table).collect();
        tables.dedup();
        for table in tables {
            let some: Vec<&str> = rights
                .clone()
                .filter(|(_, on)| *on == table)
                .map(|(right, _)| right)
                .collect();
            let row = format!(
                "REPLACE INTO mysql.tables_priv (Host, Db, User, Table_name, Grantor, Table_priv, Column_priv) \
                 VALUES ('%', '{user}', '{user}', '{table}', '', '{}', '')",
                some.join(",")
            );
            execute(&mut conn, &row).await;
        }
        execute(&mut conn, "FLUSH PRIVILEGES").await;
    }

    async fn check(&self, url: &str, args: &[&str]) -> crate::check::CheckReport {
        let places = [("PODLOG_LOCK", url), ("PODLOG_SINK", url)];
        let seen = self.fixture.check_with(args, &places).await;
        assert!(!seen.output.contains("hunter2"), "{}", seen.output);
        seen
    }

    async fn each_missing_privilege_is_named(&self) {
        let url = self.url(Some(&self.name));
        let all = RIGHTS.iter().map(|(right, table, _)| (*right, *table));
        let with_gaps = all.clone().chain([("Delete", "log_gap")]);
        self.grant(with_gaps.clone()).await;
        let seen = self.check(&url, &["--retain=7d", "--no-migrate"]).await;
        // The default of ssl-mode is warned of where the server is on another host.
        let host = self.admin.host_str().unwrap();
        let is_local = host.starts_with("127.") || host == "localhost";
        let tls = if is_local {
            vec![]
        } else {
            vec!["lock store: TLS".into(), "sink: TLS".into()]
        };
        assert_eq!(
            (seen.status, seen.of("failed"), seen.of("warning")),
            (0, vec![], tls.clone()),
            "{}",
            seen.output
        );
        assert!(seen.output.contains("could not create tables"), "{}", seen.output);
        for (right, table, subject) in RIGHTS {
            self.grant(with_gaps.clone().filter(|one| *one != (right, table))).await;
            let seen = self.check(&url, &["--retain=7d", "--no-migrate"]).await;
            assert_eq!(
                (seen.status, seen.of("failed")),
                (4, vec![subject.to_owned()]),
                "{}",
                seen.output
            );
            let grant = format!("GRANT {} ON {table} TO '{}'@'%'", right.to_uppercase(), self.name);
            assert!(seen.output.contains(&grant), "{grant}: {}", seen.output);
        }
        // Without --retain nothing is deleted, so the DELETE privilege may be missing.
        self.grant(with_gaps.filter(|(right, table)| *right != "Delete" || *table == "distributed_lock"))
            .await;
        let seen = self.check(&url, &["--no-migrate"]).await;
        assert_eq!(
            (seen.status, seen.of("warning").len()),
            (0, tls.len() + 3),
            "{}",
            seen.output
        );
    }

    async fn other_database_problems_are_named(&self) {
        let (mut conn, url) = (self.conn().await, self.url(None));
        execute(&mut conn, &format!("USE {}", self.name)).await;
        let both = |subject: &str| vec![format!("lock store: {subject}"), format!("sink: {subject}")];
        let mut wrong: url::Url = url.parse().unwrap();
        wrong.set_password(Some("hunter2")).unwrap();
        let mut nowhere = wrong.clone();
        nowhere.set_port(Some(closed())).unwrap();
        let mut nothing: url::Url = url.parse().unwrap();
        nothing.set_path("no_such_database");
        for (url, status) in [(&wrong, 4), (&nowhere, 3), (&nothing, 4)] {
            let seen = self.check(url.as_str(), &[]).await;
            assert_eq!(
                (seen.status, seen.of("failed")),
                (status, both("connection")),
                "{}",
                seen.output
            );
        }
        let skipped = self.check(nowhere.as_str(), &[]).await.of("skipped");
        for (subject, lock, sink) in [
            ("clock", true, false),
            ("packets", false, true),
            ("session", true, true),
        ] {
            let named = both(subject)
                .iter()
                .map(|one| skipped.contains(one))
                .collect::<Vec<_>>();
            assert_eq!(named, [lock, sink], "{subject}: {skipped:?}");
        }
        let checked = self.check(&url, &[]).await.of("ok");
        assert!(checked.contains(&"lock store: binary log".to_owned()), "{checked:?}");
        assert!(!checked.contains(&"sink: binary log".to_owned()), "{checked:?}");
        self.tables_of_other_versions_are_named(&mut conn, &url).await;
        self.nothing_is_left(&mut conn).await;
    }

    /// Tables of other versions, or without their tables of migrations.
    async fn tables_of_other_versions_are_named(&self, conn: &mut MySqlConnection, url: &str) {
        let both = vec!["lock store: tables".to_owned(), "sink: tables".to_owned()];
        let notes = ["podlog_locks_migrations", "podlog_records_migrations"];
        for (change, state, remedy) in [
            (
                "SET description = 'another', version = version + 700 ORDER BY version DESC LIMIT 1",
                "failed",
                "newer podlog",
            ),
            (
                "SET description = 'additive', version = version - 700 WHERE version > 700",
                "ok",
                "",
            ),
            ("SET success = FALSE", "failed", "podlog migrate"),
            (
                "SET success = TRUE, version = version - 100 ORDER BY version",
                "failed",
                "podlog migrate",
            ),
        ] {
            for table in notes {
                execute(conn, &format!("UPDATE {table} {change}")).await;
            }
            let seen = self.check(url, &["--no-migrate"]).await;
            assert!(
                both.iter().all(|one| seen.of(state).contains(one)),
                "{change}: {}",
                seen.output
            );
            assert!(seen.remedy("tables").contains(remedy), "{change}: {}", seen.output);
        }
        for table in notes {
            execute(conn, &format!("DROP TABLE {table}")).await;
        }
        let seen = self.check(url, &["--no-migrate"]).await;
        assert_eq!((seen.status, seen.of("failed")), (4, both), "{}", seen.output);
    }

    async fn nothing_is_left(&self, conn: &mut MySqlConnection) {
        let left = "SELECT (SELECT COUNT(*) FROM distributed_lock) + (SELECT COUNT(*) FROM log_stream) \
            + (SELECT COUNT(*) FROM log_record) + (SELECT COUNT(*) FROM log_gap)";
        assert_eq!(
            sqlx::query_scalar::<_, i64>(left).fetch_one(&mut *conn).await.unwrap(),
            0
        );
        let tables =
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = ? AND table_name LIKE 'podlog_probe%'";
        let tables = sqlx::query_scalar::<_, i64>(tables).bind(&self.name);
        assert_eq!(tables.fetch_one(&mut *conn).await.unwrap(), 0);
    }
}

macro_rules! both {
    ($($clause:ident),* $(,)?) => {
        mod mysql {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $clause() {
                super::on("PODLOG_TEST_MYSQL", async |server| server.$clause().await).await;
            })*
        }
        mod mariadb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $clause() {
                super::on("PODLOG_TEST_MARIADB", async |server| server.$clause().await).await;
            })*
        }
    };
}

both! { each_missing_privilege_is_named, other_database_problems_are_named }
