-- One row per gap: lines that existed and can no longer be had.
CREATE TABLE log_gap (
  -- log_stream.id.
  stream   INTEGER NOT NULL,
  -- The number of the record that comes after the gap. There is one gap at a place; a later report of it replaces the earlier.
  seq      INTEGER NOT NULL,
  -- The timestamp of the last line before it and of the first line after it; null when there is none.
  from_ns  INTEGER NULL,
  to_ns    INTEGER NULL,
  -- rotated, restarted, deleted or unavailable.
  reason   TEXT    NOT NULL,
  PRIMARY KEY (stream, seq)
) STRICT, WITHOUT ROWID;
