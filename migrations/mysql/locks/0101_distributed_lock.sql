-- Who collects which pod: one row per thing that can be held. MySQL 8 or newer, MariaDB 10.6 or newer.
-- Everything that identifies is bytes, so that no collation takes two names for one. There is deliberately no
-- index on expires_at: it changes with every renewal, and an index would double the cost of renewing.
-- To read the byte columns as text in a shell: mysql --skip-binary-as-hex
CREATE TABLE distributed_lock (
  -- The Kubernetes cluster the row belongs to; replicas see the rows of their own cluster only.
  cluster     VARBINARY(255)   NOT NULL,
  -- What is held: pod/<uid>, replica/<id> (a replica's sign of life) or duty/<name>.
  id          VARBINARY(255)   NOT NULL,
  -- The replica that holds it; NULL when nobody does.
  owner       VARBINARY(255)   NULL,
  -- The number of the latest claim. Grows whenever the holder changes, by at least one and at least to the
  -- microseconds since 1970, so that it does not repeat after the row was deleted or a failover lost a write.
  fence       BIGINT UNSIGNED  NOT NULL,
  -- Until when the claim lasts, UTC, by this server's clock.
  expires_at  DATETIME(6)      NOT NULL,
  -- 0: to be collected; 2: finished, nobody may claim it.
  state       TINYINT UNSIGNED NOT NULL DEFAULT 0,
  -- The replica that asked the holder for the row; NULL when none did.
  wanted_by   VARBINARY(255)   NULL,
  -- When the holder sent its latest renewal, by the holder's own clock in microseconds. A renewal that was
  -- overtaken by a later one on its way is not applied, so an old checkpoint never replaces a newer one.
  sent        BIGINT UNSIGNED  NOT NULL DEFAULT 0,
  -- How far the pod's streams have been stored; written by the holder, read by the next one.
  checkpoint  MEDIUMBLOB       NULL,
  -- For people: the pod's namespace, name and node.
  namespace   VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
  pod         VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
  node        VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL DEFAULT '',
  -- For people: when the present claim began, and when the row was last written, UTC.
  acquired_at DATETIME(6)      NULL,
  updated_at  DATETIME(6)      NULL,
  PRIMARY KEY (id, cluster)
) ENGINE = InnoDB DEFAULT CHARACTER SET binary
