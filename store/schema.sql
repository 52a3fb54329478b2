-- Format 1. The tables and the view `log` are a public contract: see docs. A change is a new migration, never an edit.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,             -- 'log_id', 'created_at' (microseconds UTC, to the second)
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
    position     INTEGER PRIMARY KEY,   -- order of the whole log, from 1, without gaps
    stream       INTEGER NOT NULL,      -- streams.id: a text here halves the write rate
    version      INTEGER NOT NULL,      -- order within the stream, from 1, without gaps
    type         TEXT NOT NULL,         -- kebab-case tag, for ever
    type_version INTEGER NOT NULL,
    at           INTEGER NOT NULL,      -- microseconds UTC; never falls, so a range of times is a range of positions
    data         TEXT,                  -- a JSON object; NULL once erased
    blobs        TEXT,                  -- a JSON object, field -> blobs.sha256
    correlation  TEXT,
    causation    TEXT,                  -- 'stream#version'
    principal    TEXT,                  -- who
    idx          TEXT,                  -- [is_open, wake_at, waits_on] of the stream from here on; NULL: as before
    salt         BLOB,                  -- 16 random bytes; NULL once erased
    commitment   BLOB NOT NULL,         -- blake2b-256(key = salt, data)
    digest       BLOB NOT NULL,         -- blake2b-256(digest before it in the stream, header, commitment)
    UNIQUE (stream, version)
) STRICT;

-- All of it can be rebuilt from events: `perdure verify` does.
CREATE TABLE streams (
    id       INTEGER PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,      -- 'kind/rest', [!-~]{1,200}
    kind     TEXT NOT NULL,             -- what stands before the first '/'
    version  INTEGER NOT NULL,          -- of the last event
    is_open  INTEGER NOT NULL,
    wake_at  INTEGER,                   -- microseconds UTC
    waits_on TEXT,
    first_at INTEGER NOT NULL,
    last_at  INTEGER NOT NULL
) STRICT;

-- Partial, so that closed work costs nothing: opening a log grows with open work, not with its length.
CREATE INDEX streams_open ON streams (name) WHERE is_open;
CREATE INDEX streams_wake ON streams (wake_at) WHERE is_open AND wake_at IS NOT NULL;

CREATE TABLE snapshots (
    stream  INTEGER PRIMARY KEY,        -- streams.id; the newest one only
    version INTEGER NOT NULL,           -- the state after this event
    schema  TEXT NOT NULL,              -- names the code that can read it
    data    TEXT NOT NULL
) STRICT;

CREATE TABLE blobs (
    sha256 TEXT PRIMARY KEY,
    size   INTEGER NOT NULL,
    data   BLOB NOT NULL
) STRICT;

CREATE VIEW log AS
SELECT e.position, s.name AS stream, s.kind, e.version, e.type, e.type_version, e.at, e.data, e.blobs,
       e.correlation, e.causation, e.principal, e.idx, e.salt, e.commitment, e.digest
FROM events AS e JOIN streams AS s ON s.id = e.stream;

INSERT INTO meta VALUES
    ('log_id', lower(hex(randomblob(16)))),
    ('created_at', CAST(unixepoch() * 1000000 AS TEXT));
