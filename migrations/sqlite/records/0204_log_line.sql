-- Records for people. time is UTC. Order by container_id and seq, not by time.
CREATE VIEW log_line AS
SELECT s.namespace, s.pod, s.container, s.uid, s.container_id, s.restart,
       strftime('%Y-%m-%dT%H:%M:%S', r.time_ns / 1000000000, 'unixepoch')
         || printf('.%06dZ', r.time_ns % 1000000000 / 1000) AS time,
       r.time_ns, r.ordinal, r.seq,
       CAST(r.message AS TEXT) AS message,
       r.cut
FROM log_stream s JOIN log_record r ON r.stream = s.id;
