-- One row per stream: the log of one container instance. It says where the stream stands and who may write it.
-- It is created when the stream is first opened, and deleted when its records have been deleted and it has been quiet since.
CREATE TABLE log_stream (
  -- A short name of the stream for log_record; never used again.
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  -- The pod's UID, the container's name and the runtime's ID of the instance.
  uid           TEXT    NOT NULL,
  container     TEXT    NOT NULL,
  container_id  TEXT    NOT NULL,
  -- For people: where the container ran and how many instances came before it.
  namespace     TEXT    NOT NULL,
  pod           TEXT    NOT NULL,
  restart       INTEGER NOT NULL,
  node          TEXT    NULL,
  -- The pod's labels as a JSON object, as they were when the stream was last opened.
  labels        TEXT    NOT NULL,
  -- The largest claim number the stream was opened under. Writers under a smaller one are refused. It never gets smaller.
  fence         INTEGER NOT NULL,
  -- The last stored line: its timestamp (nanoseconds since 1970), how many lines of the same timestamp came before it, and
  -- the hash of its beginning (64 bits, kept as a signed number). All are null until there is one.
  time_ns       INTEGER NULL,
  ordinal       INTEGER NULL,
  hash          INTEGER NULL,
  -- The number the next record gets. Equals the count of all records ever stored, also those deleted since.
  seq           INTEGER NOT NULL DEFAULT 0,
  -- Seconds since 1970 by this machine's clock. updated_at moves with every write and every opening.
  created_at    INTEGER NOT NULL,
  updated_at    INTEGER NOT NULL,
  UNIQUE (uid, container, container_id)
) STRICT;
