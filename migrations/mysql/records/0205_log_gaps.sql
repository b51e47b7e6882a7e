-- Gaps for people. before_seq is the record that comes after the gap.
CREATE VIEW log_gaps AS
SELECT s.namespace, s.pod,
       CONVERT(s.container USING utf8mb4)    AS container,
       CONVERT(s.uid USING utf8mb4)          AS uid,
       CONVERT(s.container_id USING utf8mb4) AS container_id,
       s.restart,
       TIMESTAMPADD(MICROSECOND, g.from_ns DIV 1000, TIMESTAMP '1970-01-01 00:00:00') AS time_from,
       TIMESTAMPADD(MICROSECOND, g.to_ns DIV 1000, TIMESTAMP '1970-01-01 00:00:00')   AS time_to,
       g.reason, g.seq AS before_seq
FROM log_stream s JOIN log_gap g ON g.stream = s.id
