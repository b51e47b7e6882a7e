-- One row per gap: lines that existed and can no longer be had.
CREATE TABLE log_gap (
  -- log_stream.id.
  stream   BIGINT          NOT NULL,
  -- The number of the record that comes after the gap. There is one gap at a place; a later report of it replaces the earlier.
  seq      BIGINT          NOT NULL,
  -- The timestamp of the last line before it and of the first line after it; null when there is none.
  from_ns  BIGINT          NULL,
  to_ns    BIGINT          NULL,
  -- rotated, restarted, deleted or unavailable.
  reason   VARCHAR(32)     NOT NULL,
  PRIMARY KEY (stream, seq)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
