-- All runs; one that is loading is summed up by its batches.
SELECT
    r.run_id, r.store, r.status, r.revision,
    coalesce(b.read, r.read) AS read, coalesce(b.loaded, r.loaded) AS loaded,
    coalesce(b.unchanged, r.unchanged) AS unchanged,
    coalesce(b.superseded, r.superseded) AS superseded,
    coalesce(b.rejected, r.rejected) AS rejected, r.started_at, r.finished_at,
    CASE WHEN r.status = 'loading' THEN (r.notes ->> 'paused_at')::timestamptz END AS paused_at
FROM load_runs r
LEFT JOIN LATERAL (
    SELECT
        sum(read)::bigint AS read, sum(loaded)::bigint AS loaded,
        sum(unchanged)::bigint AS unchanged, sum(superseded)::bigint AS superseded,
        sum(rejected)::bigint AS rejected
    FROM load_batches
    WHERE run_id = r.run_id AND attempt = r.attempt
) b ON r.status = 'loading'
ORDER BY r.run_id
