//! A user of a database on a server, who is made for one test: its log-in can be changed, and its connections ended.

use std::path::Path;

use sqlx::mysql::MySqlConnection;
use sqlx::{AssertSqlSafe, Executor};

/// A user of one database, to be dropped at the end of the test.
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) admin: MySqlConnection,
    /// The URL of the database.
    server: url::Url,
}

impl User {
    /// `how`: how the user logs in, such as `IDENTIFIED BY 'first'`.
    pub(crate) async fn new(admin: MySqlConnection, server: url::Url, how: &str) -> Self {
        let name = format!("u{:08x}", fastrand::u32(..));
        let mut user = Self { name, admin, server };
        let name = &user.name;
        let create = format!("CREATE USER '{name}'@'%' {how}");
        // The tests' user may not grant, so it writes what GRANT would write.
        let grant = format!(
            "REPLACE INTO mysql.db (Host, Db, User, Select_priv, Insert_priv, Update_priv, Delete_priv) \
             VALUES ('%', '{}', '{name}', 'Y', 'Y', 'Y', 'Y')",
            user.server.path().trim_start_matches('/')
        );
        for statement in [create, grant, "FLUSH PRIVILEGES".to_owned()] {
            user.admin.execute(AssertSqlSafe(statement)).await.unwrap();
        }
        user
    }

    /// The URL of the database, as this user without a password.
    pub(crate) fn url(&self) -> url::Url {
        let mut url = self.server.clone();
        url.set_username(&self.name).unwrap();
        url.set_password(None).unwrap();
        url
    }

    /// Ends all connections of the user. Returns how many there were.
    pub(crate) async fn kill(&mut self) -> usize {
        let sql = format!(
            "SELECT CAST(id AS SIGNED) FROM information_schema.processlist WHERE user = '{}'",
            self.name
        );
        let ids: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(sql))
            .fetch_all(&mut self.admin)
            .await
            .unwrap();
        for id in &ids {
            // It may have ended by itself.
            self.admin
                .execute(AssertSqlSafe(format!("KILL CONNECTION {id}")))
                .await
                .ok();
        }
        ids.len()
    }

    pub(crate) async fn drop(mut self) {
        let statement = format!("DROP USER '{}'@'%'", self.name);
        self.admin.execute(AssertSqlSafe(statement)).await.unwrap();
    }
}

/// Replaces a file as the kubelet replaces one of a mounted Secret: it is a link, and another takes its place.
pub(crate) fn replace(file: &Path, text: &str) {
    let of = |what: &str| file.with_extension(format!("{what}-{:08x}", fastrand::u32(..)));
    let (target, link) = (of("text"), of("link"));
    std::fs::write(&target, text).unwrap();
    std::os::unix::fs::symlink(target, &link).unwrap();
    std::fs::rename(link, file).unwrap();
}
