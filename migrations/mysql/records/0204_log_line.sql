-- Records for people. time is UTC. message is shown as text: bytes that are not UTF-8 are shown as Latin-1 or question
-- marks; log_record has them as they were. Order by container_id and seq, not by time.
CREATE VIEW log_line AS
SELECT s.namespace, s.pod,
       CONVERT(s.container USING utf8mb4)    AS container,
       CONVERT(s.uid USING utf8mb4)          AS uid,
       CONVERT(s.container_id USING utf8mb4) AS container_id,
       s.restart,
       TIMESTAMPADD(MICROSECOND, r.time_ns DIV 1000, TIMESTAMP '1970-01-01 00:00:00') AS time,
       r.time_ns, r.ordinal, r.seq,
       COALESCE(CONVERT(r.message USING utf8mb4), CONVERT(r.message USING latin1)) AS message,
       r.cut
FROM log_stream s JOIN log_record r ON r.stream = s.id
