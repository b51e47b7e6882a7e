//! The SQL of `SQLite`: one text per purpose, whatever the size of the batch. Here it is decided, by the clock of SQLite,
//! whether a claim has expired.
//!
//! A batch is one JSON array and one string of all checkpoints. `CROSS JOIN` fixes the order of the join: the array
//! first, then one row lookup per element.

use crate::db::schema::Privilege;

/// The database's time in microseconds since 1970. The clock has milliseconds; they are rounded to whole ones, so that
/// no floating point takes part in comparisons. The time is the same within a statement.
macro_rules! now {
    () => {
        "(CAST(ROUND(unixepoch('subsec') * 1000) AS INTEGER) * 1000)"
    };
}

/// Draws the next fence, which is larger than any before it, and returns it with the time. It is the first statement of
/// its transaction.
pub(super) const DRAW: &str = concat!(
    "UPDATE distributed_lock_fence SET fence = MAX(fence + 1, ",
    now!(),
    ") WHERE one = 1 RETURNING fence, ",
    now!(),
    " AS now"
);

/// The fences of these rows, and which of the rows may be acquired. Parameters: array, cluster, replica, grace.
pub(super) const READ_CURRENT: &str = concat!(
    "SELECT l.id, l.fence, l.state <> ",
    state_finished!(),
    " AND (l.owner IS NULL OR l.owner = ?3 OR l.expires_at + ?4 <= ",
    now!(),
    ") AS acquirable FROM json_each(?1) j CROSS JOIN distributed_lock l ON l.cluster = ?2 AND l.id = j.value ->> 'k'"
);

/// Acquires rows that were read in the same transaction. Parameters: array, cluster, replica,
/// fence, now, ttl.
pub(super) const ACQUIRE: &str = "\
    INSERT INTO distributed_lock (cluster, id, owner, fence, expires_at, namespace, pod, node, acquired_at, updated_at) \
    SELECT ?2, j.value ->> 'k', ?3, ?4, ?5 + ?6, j.value ->> 'ns', j.value ->> 'p', j.value ->> 'n', ?5, ?5 \
    FROM json_each(?1) j WHERE true \
    ON CONFLICT (id, cluster) DO UPDATE SET owner = excluded.owner, fence = excluded.fence, \
    expires_at = excluded.expires_at, wanted_by = NULL, namespace = excluded.namespace, pod = excluded.pod, \
    node = excluded.node, acquired_at = ?5, updated_at = ?5 \
    RETURNING id, checkpoint";

/// Extends claims and stores checkpoints. Parameters: array, cluster, replica, ttl, checkpoints.
pub(super) const RENEW: &str = concat!(
    "UPDATE distributed_lock AS l SET expires_at = MAX(l.expires_at, ",
    now!(),
    " + ?4), updated_at = ",
    now!(),
    ", checkpoint = CASE WHEN j.value ->> 'l' IS NULL THEN l.checkpoint \
     ELSE substr(?5, j.value ->> 'a', j.value ->> 'l') END \
     FROM json_each(?1) j WHERE l.cluster = ?2 AND l.id = j.value ->> 'k' AND l.fence = j.value ->> 'f' \
     AND l.owner = ?3 AND l.expires_at > ",
    now!(),
    " RETURNING id, fence"
);

/// Releases claims: free, handed or finished. Parameters: fence, now, array, cluster, replica,
/// checkpoints, ttl.
pub(super) const RELEASE: &str = "\
    UPDATE distributed_lock AS l SET owner = j.value ->> 'o', \
    fence = CASE WHEN j.value ->> 'o' IS NULL THEN l.fence ELSE ?1 END, \
    expires_at = CASE WHEN j.value ->> 'o' IS NULL THEN ?2 ELSE ?2 + ?7 END, \
    state = COALESCE(j.value ->> 's', l.state), wanted_by = NULL, updated_at = ?2, \
    checkpoint = CASE WHEN j.value ->> 'l' IS NULL THEN l.checkpoint \
    ELSE substr(?6, j.value ->> 'a', j.value ->> 'l') END \
    FROM json_each(?3) j WHERE l.cluster = ?4 AND l.id = j.value ->> 'k' AND l.fence = j.value ->> 'f' AND l.owner = ?5";

/// Deletes rows that are released for good. Parameters: array, cluster, replica.
pub(super) const RELEASE_AND_DELETE: &str = "\
    DELETE FROM distributed_lock WHERE cluster = ?2 AND owner = ?3 AND (id, fence) IN \
    (SELECT j.value ->> 'k', j.value ->> 'f' FROM json_each(?1) j)";

/// Requests rows. Parameters: array, cluster, replica.
pub(super) const REQUEST_HANDOVER: &str = concat!(
    "UPDATE distributed_lock AS l SET wanted_by = ?3 FROM json_each(?1) j WHERE l.cluster = ?2 \
    AND l.id = j.value ->> 'k' AND l.fence = j.value ->> 'f' AND l.owner <> ?3 AND l.wanted_by IS NULL AND l.state <> ",
    state_finished!()
);

/// Declines requests. Parameters: array, cluster, replica.
pub(super) const DECLINE_HANDOVER: &str = "\
    UPDATE distributed_lock AS l SET wanted_by = NULL FROM json_each(?1) j WHERE l.cluster = ?2 \
    AND l.id = j.value ->> 'k' AND l.fence = j.value ->> 'f' AND l.owner = ?3";

/// Deletes finished rows and those of dead replicas. Parameters: array, cluster, microseconds.
pub(super) const DELETE_ROWS: &str = concat!(
    "DELETE FROM distributed_lock WHERE cluster = ?2 AND id IN (SELECT j.value ->> 'k' FROM json_each(?1) j) \
     AND (state = ",
    state_finished!(),
    " OR (id GLOB 'replica/*' AND expires_at + ?3 <= ",
    now!(),
    "))"
);

/// Releases a row whoever holds it, for nobody until it would have expired. Parameters: fence, now, cluster,
/// key, nobody's name.
pub(super) const FORCE_RELEASE: &str = "\
    UPDATE distributed_lock SET owner = CASE WHEN owner IS NULL THEN NULL ELSE ?5 END, wanted_by = NULL, \
    fence = ?1, updated_at = ?2 WHERE cluster = ?3 AND id = ?4";

/// All rows of a cluster, and one line without a row if there is none. Parameter: cluster.
pub(super) const TABLE: &str = concat!(
    "SELECT t.now, l.id, l.owner, l.fence, l.expires_at, l.state, l.wanted_by, l.namespace, l.pod, l.node, \
     LENGTH(l.checkpoint) AS checkpoint_len FROM (SELECT ",
    now!(),
    " AS now) t LEFT JOIN distributed_lock l ON l.cluster = ?1"
);

/// Writes without changing anything, which shows whether the file can be written. (`BEGIN IMMEDIATE` does not: on a
/// read-only file it begins a transaction that reads.)
pub(in crate::locks) const PRIVILEGES: [Privilege; 1] = [Privilege::needed(
    "UPDATE",
    "distributed_lock_fence",
    "UPDATE distributed_lock_fence SET fence = fence WHERE one = 1",
)];

/// Writes a row that no replica sees, and removes it.
pub(in crate::locks) const PROBE: [&str; 3] = [
    "INSERT INTO distributed_lock (cluster, id, fence, expires_at) VALUES ('podlog check', 'probe', 1, 0)",
    "UPDATE distributed_lock SET fence = fence + 1 WHERE cluster = 'podlog check' AND id = 'probe'",
    "DELETE FROM distributed_lock WHERE cluster = 'podlog check' AND id = 'probe'",
];
