-- What is known of the rows under some keys of a store.
SELECT
    v.store_key,
    {digest} AS digest,
    {created_at} AS created_at,
    v.run_id,
    v.updated_at IS DISTINCT FROM r.started_at AS edited,
    ARRAY(
        -- Contents that lost before, those that this run overwrote among them.
        SELECT {loser_digest}
        FROM superseded s
        JOIN load_runs l ON l.run_id = s.run_id AND l.status <> 'rolled back'
        LEFT JOIN load_runs o ON o.run_id = s.row_run_id
        WHERE s.store = v.store AND s.store_key = v.store_key AND (
            s.kind IN ('conflict', 'outlived')
            OR s.kind = 'overwritten' AND s.run_id = %(run_id)s
        )
    ) AS losers
FROM vector_embeddings v
LEFT JOIN load_runs r USING (run_id)
WHERE v.store = %(store)s AND v.store_key = ANY (%(keys)s)
