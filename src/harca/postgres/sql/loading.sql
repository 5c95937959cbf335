-- Stores with a run that is not finished, and whether a process holds them.
SELECT
    r.store, max((r.notes ->> 'paused_at')::timestamptz) AS paused_at,
    EXISTS (
        -- As pg_try_advisory_lock(bigint) notes its key, in this database.
        SELECT FROM pg_locks l
        JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
            AND ((l.classid::bigint << 32) | l.objid::bigint)
                = hashtextextended('harca:' || r.store, 0)
    ) AS is_live
FROM load_runs r
WHERE r.status = 'loading'
GROUP BY r.store
ORDER BY r.store
