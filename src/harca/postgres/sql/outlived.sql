EXISTS (
    SELECT FROM (
        SELECT store_key FROM superseded
        WHERE run_id = %(run_id)s AND kind = 'outlived'
            AND attempt = (SELECT attempt FROM load_runs WHERE run_id = %(run_id)s)
        UNION ALL
        -- Their records were refused, and are in no list of records that lost.
        SELECT jsonb_array_elements_text(notes -> 'kept_keys') FROM load_runs
        WHERE run_id = %(run_id)s
    ) o
    WHERE o.store_key = v.store_key
)
