-- Runs, the newest first; one that is loading is summed up by its batches.
SELECT
    r.run_id, r.store, r.format, r.revision, r.status, r.attempt,
    coalesce(b.read, r.read) AS read, coalesce(b.loaded, r.loaded) AS loaded,
    coalesce(b.unchanged, r.unchanged) AS unchanged,
    coalesce(b.superseded, r.superseded) AS superseded,
    coalesce(b.rejected, r.rejected) AS rejected,
    r.started_at, r.finished_at, r.rolled_back_at, r.fingerprint,
    -- Of an attempt that took up an interrupted one, when it began is not noted.
    CASE r.attempt WHEN 1 THEN extract(epoch FROM r.finished_at - r.started_at)::float END
        AS seconds,
    r.notes -> 'verified' AS verified,
    (r.notes ->> 'files')::bigint AS files, (r.notes ->> 'bytes')::bigint AS bytes,
    coalesce((r.options ->> 'max_rejects')::bigint, 0) AS max_rejects
FROM load_runs r
LEFT JOIN LATERAL (
    SELECT
        sum(read)::bigint AS read, sum(loaded)::bigint AS loaded,
        sum(unchanged)::bigint AS unchanged, sum(superseded)::bigint AS superseded,
        sum(rejected)::bigint AS rejected
    FROM load_batches
    WHERE run_id = r.run_id AND attempt = r.attempt
) b ON r.status = 'loading'
WHERE NOT %(latest)s
    OR r.run_id IN (SELECT max(run_id) FROM load_runs WHERE status <> 'rolled back' GROUP BY store)
ORDER BY r.run_id DESC
LIMIT %(limit)s
