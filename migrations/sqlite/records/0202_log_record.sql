-- One row per line. Rows of a stream lie together and in order, so reading a stream is reading one stretch of the table,
-- and a stream's oldest rows can be deleted from one end.
CREATE TABLE log_record (
  -- log_stream.id.
  stream   INTEGER NOT NULL,
  -- The record's number within its stream, in the order the container wrote, counted from 0 without holes. Timestamps
  -- cannot give that order: they repeat and go backwards.
  seq      INTEGER NOT NULL,
  -- The runtime's timestamp, nanoseconds since 1970, and how many lines of the same timestamp came before.
  time_ns  INTEGER NOT NULL,
  ordinal  INTEGER NOT NULL,
  -- The line as it was, byte for byte, without its line end.
  message  BLOB    NOT NULL,
  -- How many bytes at its end are missing because the line was too long; mostly 0.
  cut      INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (stream, seq)
) STRICT, WITHOUT ROWID;
