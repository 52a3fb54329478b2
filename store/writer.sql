-- The writer's private view `batch`: an INSERT into it is one commit, whatever it contains. Temporary, so that the file
-- holds nothing but data. A row is routed by its kind; the columns are named for events, the others reuse them.

CREATE TEMP VIEW batch AS
SELECT NULL AS kind, NULL AS position, NULL AS stream, NULL AS version, NULL AS type, NULL AS type_version, NULL AS at,
       NULL AS data, NULL AS blobs, NULL AS correlation, NULL AS causation, NULL AS principal, NULL AS idx,
       NULL AS evidence;

-- 0, guard: position = the last position, version = PRAGMA data_version. Another connection that wrote (or checkpointed)
-- changes the latter, and this connection must not touch the file any more.
CREATE TEMP TRIGGER batch_guard INSTEAD OF INSERT ON batch WHEN NEW.kind = 0
BEGIN
    SELECT RAISE(ABORT, 'foreign writer')
    WHERE (SELECT data_version FROM pragma_data_version) <> NEW.version
       OR coalesce((SELECT max(position) FROM main.events), 0) <> NEW.position;
END;

-- 1, event in the middle of what a stream gets; 2, the last one of its stream in this batch; 3, one that sets the index
-- of open work. evidence = salt (16), commitment (32), digest (32).
CREATE TEMP TRIGGER batch_event INSTEAD OF INSERT ON batch WHEN NEW.kind BETWEEN 1 AND 3
BEGIN
    INSERT INTO events VALUES (
        NEW.position, NEW.stream, NEW.version, NEW.type, NEW.type_version, NEW.at, CAST(NEW.data AS TEXT), NEW.blobs,
        NEW.correlation, NEW.causation, NEW.principal, NEW.idx,
        substr(NEW.evidence, 1, 16), substr(NEW.evidence, 17, 32), substr(NEW.evidence, 49, 32)
    );
END;

-- The stream's row follows from its event, so it needs no row of its own in the batch: that would double the batch when
-- a thousand streams take turns. These columns are in no index, so no index is touched.
CREATE TEMP TRIGGER batch_moved INSTEAD OF INSERT ON batch WHEN NEW.kind = 2
BEGIN
    UPDATE streams SET version = NEW.version, last_at = NEW.at WHERE id = NEW.stream;
END;

CREATE TEMP TRIGGER batch_indexed INSTEAD OF INSERT ON batch WHEN NEW.kind = 3
BEGIN
    UPDATE streams
    SET version = NEW.version, last_at = NEW.at,
        is_open = NEW.idx->>0, wake_at = NEW.idx->>1, waits_on = NEW.idx->>2
    WHERE id = NEW.stream;
END;

-- 4, snapshot: position = stream, type = schema.
CREATE TEMP TRIGGER batch_snapshot INSTEAD OF INSERT ON batch WHEN NEW.kind = 4
BEGIN
    INSERT OR REPLACE INTO snapshots VALUES (NEW.position, NEW.version, NEW.type, CAST(NEW.data AS TEXT));
END;

-- 6, new stream, before its events: position = id, stream = name, type = kind, at = first_at.
CREATE TEMP TRIGGER batch_created INSTEAD OF INSERT ON batch WHEN NEW.kind = 6
BEGIN
    INSERT INTO streams VALUES (NEW.position, NEW.stream, NEW.type, 0, 1, NULL, NULL, NEW.at, NEW.at);
END;

-- 5, blob: type = sha256. The same content is the same row.
CREATE TEMP TRIGGER batch_blob INSTEAD OF INSERT ON batch WHEN NEW.kind = 5
BEGIN
    INSERT OR IGNORE INTO blobs VALUES (NEW.type, length(NEW.data), NEW.data);
END;
