-- Gaps for people. before_seq is the record that comes after the gap.
CREATE VIEW log_gaps AS
SELECT s.namespace, s.pod, s.container, s.uid, s.container_id, s.restart,
       strftime('%Y-%m-%dT%H:%M:%S', g.from_ns / 1000000000, 'unixepoch')
         || printf('.%06dZ', g.from_ns % 1000000000 / 1000) AS time_from,
       strftime('%Y-%m-%dT%H:%M:%S', g.to_ns / 1000000000, 'unixepoch')
         || printf('.%06dZ', g.to_ns % 1000000000 / 1000) AS time_to,
       g.reason, g.seq AS before_seq
FROM log_stream s JOIN log_gap g ON g.stream = s.id;
