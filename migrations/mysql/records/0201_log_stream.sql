-- One row per stream: the log of one container instance. It says where the stream stands and who may write it.
-- It is created when the stream is first opened, and deleted when its records have been deleted and it has been quiet since.
CREATE TABLE log_stream (
  -- A short name of the stream for log_record; never used again.
  id            BIGINT          NOT NULL AUTO_INCREMENT,
  -- The pod's UID, the container's name and the runtime's ID of the instance. Bytes, so that no collation makes two of them equal.
  uid           VARBINARY(64)   NOT NULL,
  container     VARBINARY(128)  NOT NULL,
  container_id  VARBINARY(128)  NOT NULL,
  -- For people: where the container ran and how many instances came before it.
  namespace     VARCHAR(255)    NOT NULL,
  pod           VARCHAR(255)    NOT NULL,
  restart       INT UNSIGNED    NOT NULL,
  node          VARCHAR(255)    NULL,
  -- The pod's labels as an object, as they were when the stream was last opened.
  labels        JSON            NOT NULL,
  -- The largest claim number the stream was opened under. Writers under a smaller one are refused. It never gets smaller.
  fence         BIGINT          NOT NULL,
  -- The last stored line: its timestamp (nanoseconds since 1970), how many lines of the same timestamp came before it, and
  -- the hash of its beginning (64 bits, kept as a signed number). All are null until there is one.
  time_ns       BIGINT          NULL,
  ordinal       BIGINT          NULL,
  hash          BIGINT          NULL,
  -- The number the next record gets. Equals the count of all records ever stored, also those deleted since.
  seq           BIGINT          NOT NULL DEFAULT 0,
  -- Database time, UTC. updated_at moves with every write and every opening.
  created_at    DATETIME(6)     NOT NULL,
  updated_at    DATETIME(6)     NOT NULL,
  PRIMARY KEY (id),
  UNIQUE KEY log_stream_instance (uid, container, container_id),
  KEY log_stream_pod (namespace, pod)
) ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
