//! The SQL of `MySQL` and `MariaDB`: one text per purpose, whatever the size of the batch. Here the database decides, by
//! its own clock, whether a claim has expired.
//!
//! A batch is one JSON array that is joined to the table by primary key. `STRAIGHT_JOIN` fixes the order of the join, and
//! `FORCE INDEX` how a row is found: the array first, then one row lookup per element. So a statement reads and locks
//! exactly the rows that it names, in their order. Without them the server scans a table of few rows, and waits for rows
//! that another transaction locks. With an `IN` list it scans the whole table when the list names a third of it, and
//! each length of the list is another text to prepare. Keys are cast to bytes, so that no collation compares them.
//!
//! An assignment reads no column that the same statement assigns, except its own, because an `UPDATE` with a join has no
//! defined order of assignments.

use crate::db::schema::Privilege;

/// The server's time in microseconds since 1970.
macro_rules! now_micros {
    () => {
        "CAST(TIMESTAMPDIFF(MICROSECOND, '1970-01-01 00:00:00.000000', UTC_TIMESTAMP(6)) AS UNSIGNED)"
    };
}

/// The next fence of a row: larger than any before it, and at least the server's time in microseconds, so that it does
/// not repeat after the row was deleted or a failover lost a write.
macro_rules! next_fence {
    () => {
        concat!("GREATEST(l.fence + 1, ", now_micros!(), ")")
    };
}

/// The JSON array as rows `j` with `id` and these other columns.
macro_rules! named {
    ($($column:literal),*) => {
        concat!(
            "JSON_TABLE(?, '$[*]' COLUMNS (id VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.k' ERROR ON ERROR",
            $(", ", $column,)* ")) j"
        )
    };
}
/// The rows of the table that the array names. Parameters: the array, the cluster.
macro_rules! join {
    ($($column:literal),*) => {
        concat!(
            named!($($column),*),
            " STRAIGHT_JOIN distributed_lock l FORCE INDEX (PRIMARY) ON l.cluster = ? AND l.id = CAST(j.id AS BINARY)"
        )
    };
}

/// What can be acquired. Parameters: replica, grace in microseconds, array, cluster.
pub(super) const READ_CURRENT: &str = concat!(
    // There is no fence after the last, and trying to count on would fail the statement for all its rows.
    "SELECT l.id, l.fence, l.state <> ",
    state_finished!(),
    " AND l.fence < 18446744073709551615 AND (l.owner IS NULL OR l.owner = ? \
     OR l.expires_at <= UTC_TIMESTAMP(6) - INTERVAL ? MICROSECOND) AS acquirable FROM ",
    join!()
);

/// Acquires rows, each only if it is as it was read. Parameters: array, cluster, replica, ttl,
/// replica, grace.
pub(super) const ACQUIRE_EXISTING: &str = concat!(
    "UPDATE ",
    join!(
        "fence BIGINT UNSIGNED PATH '$.f' ERROR ON ERROR",
        "ns VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.ns'",
        "pod VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.p'",
        "node VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.n'"
    ),
    " SET l.owner = ?, l.fence = ",
    next_fence!(),
    ", l.expires_at = UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND, l.wanted_by = NULL, l.sent = 0, \
     l.namespace = j.ns, l.pod = j.pod, l.node = j.node, l.acquired_at = UTC_TIMESTAMP(6), l.updated_at = UTC_TIMESTAMP(6) \
     WHERE l.fence = j.fence AND l.state <> ",
    state_finished!(),
    " AND (l.owner IS NULL OR l.owner = ? \
     OR l.expires_at <= UTC_TIMESTAMP(6) - INTERVAL ? MICROSECOND)"
);

/// Locks those of these rows that no other transaction locks, and returns their keys. Parameters: array, cluster.
/// `MariaDB` does not know `OF`; `MySQL` needs it in a prepared statement.
pub(super) const UNLOCKED_MYSQL: &str = concat!("SELECT l.id FROM ", join!(), " FOR UPDATE OF l SKIP LOCKED");
/// The same for `MariaDB`.
pub(super) const UNLOCKED_MARIADB: &str = concat!("SELECT l.id FROM ", join!(), " FOR UPDATE SKIP LOCKED");

/// Inserts rows, each unless it exists by now. Not with `IGNORE`, which would turn values that do not fit into
/// warnings. Parameters: cluster, replica, ttl, array.
pub(super) const ACQUIRE_ABSENT: &str = concat!(
    "INSERT INTO distributed_lock (cluster, id, owner, fence, expires_at, namespace, pod, node, acquired_at, updated_at) \
     SELECT ?, CAST(j.id AS BINARY), ?, ",
    now_micros!(),
    ", UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND, j.ns, j.pod, j.node, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) FROM ",
    named!(
        "ns VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.ns'",
        "pod VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.p'",
        "node VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.n'"
    ),
    " ON DUPLICATE KEY UPDATE id = distributed_lock.id"
);

/// Which of these rows this replica holds. Parameters: array, cluster, replica.
pub(super) const ACQUIRED: &str = concat!(
    "SELECT l.id, l.fence, l.checkpoint FROM ",
    join!(),
    " WHERE l.owner = ? AND l.expires_at > UTC_TIMESTAMP(6)"
);

/// Extends claims. Parameters: array, cluster, ttl, sent, replica, sent.
pub(super) const RENEW: &str = concat!(
    "UPDATE ",
    join!("fence BIGINT UNSIGNED PATH '$.f' ERROR ON ERROR"),
    " SET l.expires_at = GREATEST(l.expires_at, UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND), l.sent = ?, \
     l.updated_at = UTC_TIMESTAMP(6) \
     WHERE l.fence = j.fence AND l.owner = ? AND l.sent <= ? AND l.expires_at > UTC_TIMESTAMP(6)"
);

/// Extends claims and stores their checkpoints. Parameters: array, cluster, ttl, sent, checkpoints,
/// replica, sent.
pub(super) const RENEW_AND_STORE: &str = concat!(
    "UPDATE ",
    join!(
        "fence BIGINT UNSIGNED PATH '$.f' ERROR ON ERROR",
        "at INT UNSIGNED PATH '$.a'",
        "len INT UNSIGNED PATH '$.l'"
    ),
    " SET l.expires_at = GREATEST(l.expires_at, UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND), l.sent = ?, \
     l.updated_at = UTC_TIMESTAMP(6), l.checkpoint = SUBSTRING(?, j.at, j.len) \
     WHERE l.fence = j.fence AND l.owner = ? AND l.sent <= ? AND l.expires_at > UTC_TIMESTAMP(6)"
);

/// Which of these rows are held, and under which fences. Parameters: array, cluster, replica.
pub(super) const HELD: &str = concat!(
    "SELECT l.id, l.fence FROM ",
    join!(),
    " WHERE l.owner = ? AND l.expires_at > UTC_TIMESTAMP(6)"
);

/// Releases claims: free, handed to a replica or finished. Parameters: array, cluster, ttl,
/// checkpoints, replica.
pub(super) const RELEASE: &str = concat!(
    "UPDATE ",
    join!(
        "fence BIGINT UNSIGNED PATH '$.f' ERROR ON ERROR",
        "at INT UNSIGNED PATH '$.a'",
        "len INT UNSIGNED PATH '$.l'",
        "receiver VARCHAR(255) CHARACTER SET utf8mb4 PATH '$.o' ERROR ON ERROR",
        "state TINYINT UNSIGNED PATH '$.s'"
    ),
    " SET l.owner = CAST(j.receiver AS BINARY), l.fence = IF(j.receiver IS NULL, l.fence, ",
    next_fence!(),
    "), l.expires_at = IF(j.receiver IS NULL, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6) + INTERVAL ? MICROSECOND), \
     l.state = COALESCE(j.state, l.state), l.wanted_by = NULL, l.sent = 0, l.updated_at = UTC_TIMESTAMP(6), \
     l.checkpoint = IF(j.len IS NULL, l.checkpoint, SUBSTRING(?, j.at, j.len)) \
     WHERE l.fence = j.fence AND l.owner = ?"
);

/// Deletes rows that are released for good. Parameters: array, cluster, replica.
pub(super) const RELEASE_AND_DELETE: &str = concat!(
    "DELETE l FROM ",
    join!("fence BIGINT UNSIGNED PATH '$.f' ERROR ON ERROR"),
    " WHERE l.fence = j.fence AND l.owner = ?"
);

/// Requests rows. Parameters: array, cluster, replica, replica.
pub(super) const REQUEST_HANDOVER: &str = concat!(
    "UPDATE ",
    join!("fence BIGINT UNSIGNED PATH '$.f' ERROR ON ERROR"),
    " SET l.wanted_by = ? WHERE l.fence = j.fence AND l.owner <> ? AND l.wanted_by IS NULL AND l.state <> ",
    state_finished!()
);

/// Declines requests. Parameters: array, cluster, replica.
pub(super) const DECLINE_HANDOVER: &str = concat!(
    "UPDATE ",
    join!("fence BIGINT UNSIGNED PATH '$.f' ERROR ON ERROR"),
    " SET l.wanted_by = NULL WHERE l.fence = j.fence AND l.owner = ?"
);

/// Deletes finished rows and those of dead replicas. Parameters: array, cluster, seconds.
pub(super) const DELETE_ROWS: &str = concat!(
    "DELETE l FROM ",
    join!(),
    " WHERE l.state = ",
    state_finished!(),
    " OR (l.id LIKE CAST('replica/%' AS BINARY) AND l.expires_at <= UTC_TIMESTAMP(6) - INTERVAL ? SECOND)"
);

/// Releases a row whoever holds it, for nobody until it would have expired. Parameters: nobody's name, cluster, key.
pub(super) const FORCE_RELEASE: &str = concat!(
    "UPDATE distributed_lock l SET l.owner = IF(l.owner IS NULL, NULL, ?), l.wanted_by = NULL, l.sent = 0, l.fence = ",
    next_fence!(),
    ", l.updated_at = UTC_TIMESTAMP(6) WHERE l.cluster = ? AND l.id = ?"
);

/// All rows of a cluster, and one line without a row if there is none. `$server` identifies the server. Parameter:
/// cluster.
macro_rules! table {
    ($server:literal) => {
        concat!(
            "SELECT t.now, CAST(",
            $server,
            " AS CHAR) AS server, l.id, l.owner, l.fence, \
             TIMESTAMPDIFF(MICROSECOND, t.at, l.expires_at) AS expires_in, l.state, l.wanted_by, \
             l.namespace, l.pod, l.node, OCTET_LENGTH(l.checkpoint) AS checkpoint_len \
             FROM (SELECT UTC_TIMESTAMP(6) AS at, ",
            now_micros!(),
            " AS now) t LEFT JOIN distributed_lock l ON l.cluster = ?"
        )
    };
}
/// The table, from `MySQL`.
pub(super) const TABLE_MYSQL: &str = table!("@@server_uuid");
/// The table, from `MariaDB`, which has no UUID.
pub(super) const TABLE_MARIADB: &str = table!("CONCAT(@@server_id, '@', @@hostname)");

/// Each privilege that the statements above need.
pub(in crate::locks) const PRIVILEGES: [Privilege; 4] = [
    Privilege::needed("SELECT", "distributed_lock", "SELECT 1 FROM distributed_lock LIMIT 0"),
    Privilege::needed(
        "INSERT",
        "distributed_lock",
        "INSERT INTO distributed_lock (cluster, id, fence, expires_at) \
         SELECT '', '', 0, UTC_TIMESTAMP(6) FROM DUAL WHERE 1 = 0",
    ),
    Privilege::needed(
        "UPDATE",
        "distributed_lock",
        "UPDATE distributed_lock SET owner = NULL WHERE 1 = 0",
    ),
    Privilege::needed("DELETE", "distributed_lock", "DELETE FROM distributed_lock WHERE 1 = 0"),
];

/// Writes a row that no replica sees, changes it and removes it. The connection's number keeps two checks apart.
pub(in crate::locks) const PROBE: [&str; 3] = [
    "INSERT INTO distributed_lock (cluster, id, fence, expires_at) \
     VALUES ('podlog check', CONCAT('probe/', CONNECTION_ID()), 1, UTC_TIMESTAMP(6))",
    "UPDATE distributed_lock SET fence = fence + 1 \
     WHERE cluster = 'podlog check' AND id = CONCAT('probe/', CONNECTION_ID())",
    "DELETE FROM distributed_lock WHERE cluster = 'podlog check' AND id = CONCAT('probe/', CONNECTION_ID())",
];
