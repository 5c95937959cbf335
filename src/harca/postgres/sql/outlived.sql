EXISTS (
    SELECT FROM superseded o
    WHERE o.run_id = %(run_id)s AND o.kind = 'outlived' AND o.store_key = v.store_key
        AND o.attempt = (SELECT attempt FROM load_runs WHERE run_id = %(run_id)s)
)
