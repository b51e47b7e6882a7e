-- One row per line. Rows of a stream lie together and in order, so reading a stream is reading one stretch of the table,
-- and a stream's oldest rows can be deleted from one end.
CREATE TABLE log_record (
  -- log_stream.id. No foreign key: it would lock the stream's row a second time for each record.
  stream   BIGINT          NOT NULL,
  -- The record's number within its stream, in the order the container wrote, counted from 0 without holes. Timestamps
  -- cannot give that order: they repeat and go backwards.
  seq      BIGINT          NOT NULL,
  -- The runtime's timestamp, nanoseconds since 1970, and how many lines of the same timestamp came before.
  time_ns  BIGINT          NOT NULL,
  ordinal  INT UNSIGNED    NOT NULL,
  -- The line as it was, byte for byte, without its line end.
  message  MEDIUMBLOB      NOT NULL,
  -- How many bytes at its end are missing because the line was too long; mostly 0.
  cut      BIGINT          NOT NULL DEFAULT 0,
  PRIMARY KEY (stream, seq)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
