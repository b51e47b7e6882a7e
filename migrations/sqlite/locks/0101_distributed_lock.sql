-- Who collects which pod: one row per thing that can be held. Times are microseconds since 1970, UTC.
-- Text is compared byte by byte (SQLite's BINARY collation, which is its default).
CREATE TABLE distributed_lock (
  -- The Kubernetes cluster the row belongs to; replicas see the rows of their own cluster only.
  cluster     TEXT    NOT NULL,
  -- What is held: pod/<uid>, replica/<id> (a replica's sign of life) or duty/<name>.
  id          TEXT    NOT NULL,
  -- The replica that holds it; NULL when nobody does.
  owner       TEXT    NULL,
  -- The number of the latest claim. Grows whenever the holder changes; see distributed_lock_fence.
  fence       INTEGER NOT NULL,
  -- Until when the claim lasts.
  expires_at  INTEGER NOT NULL,
  -- 0: to be collected; 2: finished, nobody may claim it.
  state       INTEGER NOT NULL DEFAULT 0,
  -- The replica that asked the holder for the row; NULL when none did.
  wanted_by   TEXT    NULL,
  -- How far the pod's streams have been stored; written by the holder, read by the next one.
  checkpoint  BLOB    NULL,
  -- For people: the pod's namespace, name and node.
  namespace   TEXT    NOT NULL DEFAULT '',
  pod         TEXT    NOT NULL DEFAULT '',
  node        TEXT    NOT NULL DEFAULT '',
  -- For people: when the present claim began, and when the row was last written.
  acquired_at INTEGER NULL,
  updated_at  INTEGER NULL,
  PRIMARY KEY (id, cluster)
) STRICT, WITHOUT ROWID;

-- The largest fence ever given out, in one row, so that a fence does not repeat after its row was deleted.
-- SQLite's clock has milliseconds only, so time alone would not do.
CREATE TABLE distributed_lock_fence (
  one   INTEGER PRIMARY KEY CHECK (one = 1),
  fence INTEGER NOT NULL
) STRICT;

INSERT INTO distributed_lock_fence (one, fence) VALUES (1, 0);
