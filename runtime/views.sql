-- Views over the log for people and auditors: a public contract like the tables. Each is derived, none is ever written.

-- One row a run. `status` follows from the last event that is its own; `result` and `error` are null while it is open.
CREATE VIEW runs AS
SELECT substr(s.name, 5) AS run,
       started.data ->> '$.workflow' AS workflow,
       CASE iif(s.is_open AND s.waits_on = 'resume', 'run-paused', iif(s.is_open AND s.waits_on LIKE 'queue:%', 'queued', last.type))
           WHEN 'run-paused' THEN 'paused'
           WHEN 'queued' THEN 'queued'
           WHEN 'run-completed' THEN 'completed'
           WHEN 'run-failed' THEN 'failed'
           WHEN 'run-cancelled' THEN 'cancelled'
           WHEN 'run-continued' THEN 'continued'
           WHEN 'run-blocked' THEN 'blocked'
           WHEN 'run-parked' THEN 'waiting'
           WHEN 'run-retried' THEN 'waiting'
           ELSE 'running'
       END AS status,
       s.first_at AS started_at,
       s.last_at,
       s.is_open,
       s.wake_at,
       s.waits_on,
       started.data ->> '$.forked_from.run' AS forked_from,
       started.data ->> '$.parent.run' AS parent,
       CASE last.type WHEN 'run-continued' THEN last.data ->> '$.run' END AS continued_as,
       started.data -> '$.input' AS input,
       CASE last.type WHEN 'run-completed' THEN last.data -> '$.result' END AS result,
       CASE WHEN last.type IN ('run-failed', 'run-blocked')
            THEN coalesce(last.data ->> '$.error_type', last.data ->> '$.kind') END AS error_type,
       CASE WHEN last.type IN ('run-failed', 'run-blocked')
            THEN coalesce(last.data ->> '$.error', last.data ->> '$.account') END AS error
FROM streams AS s
JOIN events AS started ON started.stream = s.id AND started.version = 1
JOIN events AS last ON last.stream = s.id
    AND last.version = (SELECT max(e.version)
                        FROM events AS e
                        WHERE e.stream = s.id
                          AND e.type NOT IN ('run-paused', 'run-unpaused', 'signal-received', 'question-answered',
                                             'call-approved', 'call-rejected', 'child-ended', 'parent-told', 'event-found',
                                             'event-places-moved'))
WHERE s.kind = 'run';

-- One row a child run that a run started. `status` is null while an awaited one has not ended, and of one that is not.
CREATE VIEW child_runs AS
SELECT substr(s.name, 5) AS run,
       started.data ->> '$.step' AS step,
       started.data ->> '$.run' AS child,
       started.data ->> '$.workflow' AS workflow,
       started.data ->> '$.is_awaited' AS is_awaited,
       started.at AS started_at,
       ended.at AS ended_at,
       ended.data ->> '$.status' AS status,
       ended.data ->> '$.run' AS ended_as,
       nullif(ended.data ->> '$.error', '') AS error,
       started.position
FROM events AS started
JOIN streams AS s ON s.id = started.stream
LEFT JOIN events AS ended ON ended.stream = started.stream
    AND ended.type = 'child-ended'
    AND ended.data ->> '$.step' = started.data ->> '$.step'
    AND ended.version = (SELECT min(e.version)
                         FROM events AS e
                         WHERE e.stream = started.stream
                           AND e.version > started.version
                           AND e.type = 'child-ended'
                           AND e.data ->> '$.step' = started.data ->> '$.step')
WHERE s.kind = 'run' AND started.type = 'child-started';

-- One row a step of a run: a tool or a function that was called.
CREATE VIEW steps AS
SELECT substr(s.name, 5) AS run,
       e.data ->> '$.step' AS step,
       max(e.data ->> '$.tool') AS tool,
       max(e.data ->> '$.effect') AS effect,
       CASE max(CASE e.type WHEN 'step-completed' THEN 3 WHEN 'step-failed' THEN 2 WHEN 'step-cancelled' THEN 1 ELSE 0 END)
           WHEN 3 THEN 'completed' WHEN 2 THEN 'failed' WHEN 1 THEN 'cancelled' ELSE 'open'
       END AS status,
       min(e.at) AS started_at,
       max(CASE WHEN e.type IN ('step-completed', 'step-failed', 'step-cancelled') THEN e.at END) AS ended_at,
       max(coalesce(e.data ->> '$.attempt', 1)) AS attempts,
       max(e.data ->> '$.micros') AS micros,
       max(e.type = 'step-in-doubt') AS was_in_doubt,
       max(CASE e.type WHEN 'step-failed' THEN e.data ->> '$.error' END) AS error,
       min(e.position) AS position
FROM events AS e
JOIN streams AS s ON s.id = e.stream
WHERE s.kind = 'run'
  AND e.type IN ('step-started', 'attempt-started', 'attempt-failed', 'attempt-refused', 'attempt-delayed', 'step-in-doubt',
                 'step-not-done', 'step-completed', 'step-failed', 'step-cancelled')
GROUP BY e.stream, e.data ->> '$.step';

-- One row a call of a tool that ended or was refused, in a run or outside of one.
CREATE VIEW tool_calls AS
SELECT e.position,
       substr(s.name, 6, coalesce(nullif(instr(s.name, '@'), 0), 202) - 6) AS tool,
       nullif(substr(s.name, coalesce(nullif(instr(s.name, '@'), 0), 202) + 1), '') AS conversation,
       e.data ->> '$.call' AS call,
       substr(e.type, 6) AS outcome,
       CASE e.type WHEN 'call-refused' THEN coalesce(e.data ->> '$.by', 'circuit') END AS refused_by,
       e.at AS ended_at,
       e.data ->> '$.micros' AS micros,
       e.data ->> '$.error_type' AS error_type,
       coalesce(e.data ->> '$.error', e.data ->> '$.reason') AS error,
       e.correlation
FROM events AS e
JOIN streams AS s ON s.id = e.stream
WHERE s.kind = 'tool'
  AND e.type IN ('call-succeeded', 'call-failed', 'call-cancelled', 'call-refused', 'call-lost');

-- One row a transition of a circuit breaker; `forced` and `principal` where an operator brought it about.
CREATE VIEW breaker_changes AS
SELECT e.position,
       substr(s.name, 6, coalesce(nullif(instr(s.name, '@'), 0), 202) - 6) AS tool,
       nullif(substr(s.name, coalesce(nullif(instr(s.name, '@'), 0), 202) + 1), '') AS conversation,
       CASE e.type
           WHEN 'circuit-opened' THEN 'open'
           WHEN 'circuit-half-opened' THEN 'half_open'
           WHEN 'circuit-forced' THEN CASE e.data ->> '$.to' WHEN 'open' THEN 'open' WHEN 'disabled' THEN 'disabled' ELSE 'closed' END
           ELSE 'closed'
       END AS state,
       e.at,
       e.data ->> '$.generation' AS generation,
       coalesce(e.data ->> '$.reason', e.data ->> '$.because') AS reason,
       CASE e.type WHEN 'circuit-forced' THEN e.data ->> '$.to' END AS forced,
       e.principal,
       e.correlation
FROM events AS e
JOIN streams AS s ON s.id = e.stream
WHERE e.type IN ('circuit-opened', 'circuit-half-opened', 'circuit-closed', 'circuit-forced');

-- One row a holder of a slot. `because` says why it left, or is leaving; `released_at` is null while it holds the slot.
CREATE VIEW slot_leases AS
SELECT taken.position,
       substr(s.name, 6) AS slot,
       taken.data ->> '$.lease' AS lease,
       taken.data ->> '$.trajectory' AS trajectory,
       taken.at AS acquired_at,
       gone.at AS released_at,
       CASE gone.type
           WHEN 'slot-quarantined' THEN 'quarantined: ' || (gone.data ->> '$.reason')
           ELSE (SELECT begun.data ->> '$.because'
                 FROM events AS begun
                 WHERE begun.stream = taken.stream
                   AND begun.version > taken.version
                   AND begun.version < coalesce(gone.version, 9223372036854775807)
                   AND begun.type = 'slot-release-begun')
       END AS because
FROM events AS taken
JOIN streams AS s ON s.id = taken.stream
LEFT JOIN events AS gone ON gone.stream = taken.stream
    AND gone.version = (SELECT e.version
                        FROM events AS e
                        WHERE e.stream = taken.stream
                          AND e.version > taken.version
                          AND e.type IN ('slot-released', 'slot-quarantined')
                        ORDER BY e.version
                        LIMIT 1)
WHERE s.kind = 'slot' AND taken.type = 'slot-acquired';

-- One row a call of a trajectory. `success` is null while it has no outcome, and of one that was cancelled; `in_doubt`
-- tells whether somebody has to say what became of it; `slot` is where it was last sent, null: to a tool server.
CREATE VIEW executions AS
SELECT substr(s.name, 12) AS trajectory,
       e.data ->> '$.execution' AS execution,
       max(e.data ->> '$.tool') AS tool,
       max(e.data ->> '$.effect') AS effect,
       nullif(substr(max(CASE e.type WHEN 'execution-requested'
                         THEN printf('%020d', e.version) || coalesce(e.data ->> '$.slot', '') END), 21), '') AS slot,
       max(e.data ->> '$.attempt') AS attempts,
       min(e.at) AS requested_at,
       max(CASE WHEN e.type IN ('execution-completed', 'execution-cancelled', 'execution-settled') THEN e.at END) AS ended_at,
       max(CASE WHEN e.type IN ('execution-completed', 'execution-settled') THEN e.data ->> '$.success' END) AS success,
       max(CASE e.type
           WHEN 'execution-completed' THEN nullif(e.data ->> '$.error', '')
           WHEN 'execution-cancelled' THEN e.data ->> '$.reason'
       END) AS error,
       max(CASE e.type WHEN 'execution-requested' THEN 0 WHEN 'execution-in-doubt' THEN 1 ELSE 2 END) = 1 AS in_doubt,
       min(e.position) AS position
FROM events AS e
JOIN streams AS s ON s.id = e.stream
WHERE s.kind = 'trajectory'
  AND e.type IN ('execution-requested', 'execution-completed', 'execution-cancelled', 'execution-in-doubt', 'execution-settled')
GROUP BY e.stream, e.data ->> '$.execution';

-- One row a published event; `run` is null where no run published it.
CREATE VIEW published_events AS
SELECT e.position,
       substr(s.name, 7) AS type,
       e.data ->> '$.id' AS id,
       e.at,
       e.data -> '$.data' AS data,
       e.data ->> '$.run' AS run,
       e.principal
FROM events AS e
JOIN streams AS s ON s.id = e.stream
WHERE s.kind = 'topic' AND e.type = 'event-published';
