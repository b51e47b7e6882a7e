//! Views with the rights of the user who reads them.
//!
//! The first migrations made views with the rights of the user who created them: when that user is dropped, nobody can
//! read them and the database cannot be dumped. A migration cannot change that, because it needs the right to drop, which
//! users that migrate were never told to have, and a migration that fails stops every replica. So views are replaced
//! beside the migrations, where the user may, and `podlog check` names those that are left. No table is touched.

use sqlx::mysql::MySqlConnection;
use sqlx::{Error, Executor, MySql};

use super::errors::is_denied;
use crate::db::database::{Database, cause};
use crate::db::diagnose::{Diagnosis, within};
use crate::domain::Finding;

/// A view, and the statement that makes it anew.
#[derive(Debug)]
pub(crate) struct View {
    pub name: &'static str,
    pub replace: &'static str,
}

/// The names of views with the rights of their creators, as far as the user may see them.
const OF_CREATORS: &str = "SELECT CONVERT(TABLE_NAME USING utf8mb4) FROM information_schema.VIEWS \
    WHERE TABLE_SCHEMA = DATABASE() AND SECURITY_TYPE = 'DEFINER'";

const REMEDY: &str = "run `podlog migrate` as a user with DROP and CREATE VIEW on the database; then people who read the views \
    need SELECT on log_stream, log_record and log_gap too";

async fn of_creators(conn: &mut MySqlConnection, db: &Database<MySql>) -> Result<Vec<&'static View>, Error> {
    let views = db.schema.requirements.views;
    if views.is_empty() {
        return Ok(Vec::new());
    }
    let found: Vec<String> = sqlx::query_scalar(OF_CREATORS).fetch_all(conn).await?;
    Ok(views
        .iter()
        .filter(|view| found.iter().any(|name| name == view.name))
        .collect())
}

/// Replaces the views that have the rights of their creators. What cannot be replaced stays as it is.
pub(super) async fn replace(conn: &mut MySqlConnection, db: &Database<MySql>) {
    let views = match of_creators(conn, db).await {
        Ok(views) => views,
        Err(error) => {
            tracing::debug!(database = db.name, %error, "the views cannot be looked at");
            return;
        }
    };
    for View { name, replace } in views {
        match conn.execute(*replace).await {
            Ok(_) => tracing::info!(
                database = db.name,
                view = name,
                "the view has the rights of its readers now"
            ),
            // `podlog check` tells it.
            Err(error) if is_denied(&error) => {
                tracing::debug!(database = db.name, view = name, %error, "the view cannot be replaced");
            }
            Err(error) => {
                tracing::warn!(
                    database = db.name,
                    view = name,
                    error = cause(&error),
                    "the view cannot be replaced; {REMEDY}"
                );
            }
        }
    }
}

/// Reports the views that have the rights of their creators.
pub(super) async fn check(diagnosis: &mut Diagnosis<'_, MySql>) {
    let found = within(of_creators(&mut diagnosis.conn, diagnosis.db)).await;
    match found {
        Ok(views) if views.is_empty() => {}
        Ok(views) => {
            let names: Vec<&str> = views.iter().map(|view| view.name).collect();
            let text = format!(
                "{} cannot be read any more when the user who created them is dropped",
                names.join(" and ")
            );
            diagnosis.findings.push(Finding::warning("views", text, REMEDY));
        }
        Err(error) => diagnosis.failed("views", &error),
    }
}
