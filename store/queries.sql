-- Every statement but the schema, by name. Pages of rows come back as one JSON text: the sqlite3 module hands the GIL
-- over for every row it fetches, and beside a busy event loop that is 50 times slower than one row with everything.

-- name: commit
-- One statement is one transaction: rows are JSON arrays in ?1, payloads and evidence are slices of ?2.
INSERT INTO batch
SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6,
       substr(?2, (value->>7) + 1, value->>8),
       value->>9, value->>10, value->>11, value->>12, value->>13,
       substr(?2, (value->>7) + (value->>8) + 1, 80)
FROM json_each(CAST(?1 AS TEXT));

-- name: identity
-- Whose file it is, before anything is written to it.
SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
       (SELECT count(*) FROM sqlite_schema);

-- name: meta
-- The log's identity.
SELECT json_group_object(key, value) FROM meta;

-- name: data_version
-- Changes only when another connection has written.
SELECT data_version FROM pragma_data_version;

-- name: origin
-- Where the log stands: last position and its time, greatest stream id.
SELECT coalesce(max(position), 0), coalesce((SELECT at FROM events ORDER BY position DESC LIMIT 1), 0),
       coalesce((SELECT max(id) FROM streams), 0)
FROM events;

-- name: last_head
-- The last head: opening verifies only what came after it.
SELECT e.position, e.data
FROM events AS e JOIN streams AS s ON s.id = e.stream
WHERE s.name = ?1 ORDER BY e.version DESC LIMIT 1;

-- name: previous_digests
-- What the first event of each stream in the tail builds on, looked up in the unique index. NOT INDEXED: the tail is
-- found by its positions and sorted; along that index it would need no sorting, and all events there ever were.
SELECT p.stream, p.version, hex(p.digest)
FROM (SELECT stream, min(version) AS version FROM events NOT INDEXED WHERE position >= ?1 GROUP BY stream) AS t
JOIN events AS p ON p.stream = t.stream AND p.version = t.version - 1;

-- name: evidence
-- A page of events with all that their digests are made of.
SELECT e.position, e.stream, s.name, e.version, e.type, e.type_version, e.at, e.blobs, e.correlation, e.causation,
       e.principal, e.idx, CAST(e.data AS BLOB), e.salt, e.commitment, e.digest
FROM events AS e LEFT JOIN streams AS s ON s.id = e.stream
WHERE e.position >= ?1 ORDER BY e.position LIMIT ?2;

-- name: tips
-- Streams by name with their last digest and, when the caller can read it, their snapshot; all in one query.
SELECT json_group_array(json_array(
    w.value->>0, s.id, s.version, hex(e.digest), s.is_open, s.wake_at, s.waits_on, n.version, n.schema, n.data))
FROM json_each(?1) AS w
CROSS JOIN streams AS s ON s.name = w.value->>0
LEFT JOIN events AS e ON e.stream = s.id AND e.version = s.version
LEFT JOIN snapshots AS n ON n.stream = s.id AND n.schema = w.value->>1;

-- name: stream_ranges
-- Events of many streams: rows of ?1 are [stream id, after version, up to version].
-- The joins are CROSS, so they nest as written: ranges in their order, versions along the unique index. An ORDER BY would
-- sort all of it again, which takes as long as the rest; the caller checks the order. The ranges are materialized,
-- because JSON would be parsed again for every row.
WITH w AS MATERIALIZED (
    SELECT value->>0 AS stream, value->>1 AS low, value->>2 AS high FROM json_each(?1)
)
SELECT json_group_array(json_array(
    e.position, s.name, e.version, e.type, e.type_version, e.at, e.data, e.blobs, e.correlation, e.causation,
    e.principal))
FROM w
CROSS JOIN streams AS s ON s.id = w.stream
CROSS JOIN events AS e ON e.stream = w.stream AND e.version > w.low AND e.version <= w.high;

-- name: open_streams
-- The index of open work by name; the bounds are half open.
SELECT json_group_array(json_array(name, version, wake_at, waits_on, last_at))
FROM (
    SELECT * FROM streams
    WHERE is_open AND name > ?1 AND name >= ?2 AND name < ?3 AND (?5 IS NULL OR waits_on = ?5)
    ORDER BY name LIMIT ?4
);

-- name: due_streams
-- The same, of those that have slept long enough.
SELECT json_group_array(json_array(name, version, wake_at, waits_on, last_at))
FROM (
    SELECT * FROM streams INDEXED BY streams_wake
    WHERE is_open AND wake_at IS NOT NULL AND wake_at <= ?6 AND name > ?1 AND name >= ?2 AND name < ?3
      AND (?5 IS NULL OR waits_on = ?5)
    ORDER BY name LIMIT ?4
);

-- name: next_wake
-- The earliest alarm after a time: one entry of a partial index.
SELECT min(wake_at) FROM streams WHERE is_open AND wake_at IS NOT NULL AND wake_at > ?1;

-- name: blobs
-- Large values by their hash.
SELECT sha256, data FROM blobs WHERE sha256 IN (SELECT value FROM json_each(?1));

-- name: last_position
-- Where a reader ends.
SELECT coalesce(max(position), 0) FROM events;

-- name: position_at
-- The last position before time ?1, by binary search: `at` never falls, so no index is needed.
WITH RECURSIVE search(low, high) AS (
    SELECT 0, (SELECT coalesce(max(position), 0) FROM events)
    UNION ALL
    SELECT iif(e.at < ?1, (low + high + 1) / 2, low), iif(e.at < ?1, high, (low + high + 1) / 2 - 1)
    FROM search JOIN events AS e
    ON e.position = (SELECT min(position) FROM events WHERE position >= (low + high + 1) / 2)
    WHERE low < high
)
SELECT low FROM search WHERE low >= high;

-- name: page_of_log
-- Events in the order of the log between two positions; what is not asked for is NULL.
SELECT json_group_array(json_array(
    position, name, version, type, type_version, at, data, blobs, correlation, causation, principal))
FROM (
    SELECT e.*, s.name
    FROM events AS e CROSS JOIN streams AS s ON s.id = e.stream
    WHERE e.position > :after AND e.position <= :until
      AND (:types IS NULL OR e.type IN (SELECT value FROM json_each(:types)))
      AND (:correlation IS NULL OR e.correlation = :correlation)
      AND (:prefix IS NULL OR (s.name >= :prefix AND s.name < :prefix_end))
      AND (:tool IS NULL OR e.data->>'$.tool' = :tool)
    ORDER BY e.position ASC LIMIT :limit
);

-- name: page_of_stream
-- The same of one stream, along its unique index.
SELECT json_group_array(json_array(
    position, name, version, type, type_version, at, data, blobs, correlation, causation, principal))
FROM (
    SELECT e.*, s.name
    FROM streams AS s CROSS JOIN events AS e ON e.stream = s.id
    WHERE s.name = :stream AND e.position > :after AND e.position <= :until
      AND (:types IS NULL OR e.type IN (SELECT value FROM json_each(:types)))
      AND (:correlation IS NULL OR e.correlation = :correlation)
      AND (:prefix IS NULL OR (s.name >= :prefix AND s.name < :prefix_end))
      AND (:tool IS NULL OR e.data->>'$.tool' = :tool)
    ORDER BY e.version ASC LIMIT :limit
);

-- name: streams
-- Streams by name, open or not; the bounds are half open.
SELECT json_group_array(json_array(
    name, kind, version, json(iif(is_open, 'true', 'false')), wake_at, waits_on, first_at, last_at))
FROM (
    SELECT * FROM streams
    WHERE name > ?1 AND name >= ?2 AND name < ?3 AND (NOT ?5 OR is_open)
    ORDER BY name LIMIT ?4
);

-- name: counts
-- What a doctor wants to know first.
SELECT (SELECT coalesce(max(position), 0) FROM events), (SELECT at FROM events ORDER BY position DESC LIMIT 1),
       (SELECT count(*) FROM streams), (SELECT count(*) FROM streams WHERE is_open),
       (SELECT count(*) FROM streams WHERE is_open AND wake_at IS NOT NULL),
       (SELECT coalesce(sum(size), 0) FROM blobs);

-- name: stream_rows
-- The derived rows, to be compared with the events.
SELECT id, name, kind, version, is_open, wake_at, waits_on, first_at, last_at FROM streams;

-- name: snapshot_rows
-- Snapshots beside the versions that they claim.
SELECT n.stream, s.name, n.version, s.version, json_valid(n.data)
FROM snapshots AS n LEFT JOIN streams AS s ON s.id = n.stream;

-- name: blob_rows
-- Every large value, to be hashed again.
SELECT sha256, size, data FROM blobs;

-- name: missing_blobs
-- Events that name a blob which is not there.
SELECT e.position, s.name, b.value
FROM events AS e JOIN streams AS s ON s.id = e.stream, json_each(e.blobs) AS b
WHERE e.blobs IS NOT NULL AND b.value NOT IN (SELECT sha256 FROM blobs)
ORDER BY e.position LIMIT 100;
