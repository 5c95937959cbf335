-- A run's counts, from the rows, the batches and the lists that they stand for.
SELECT
    b.read, b.unchanged,
    (
        SELECT count(*) FROM vector_embeddings v WHERE v.run_id = %(run_id)s AND NOT {outlived}
    ) AS loaded,
    (
        SELECT count(*) FROM superseded WHERE run_id = %(run_id)s AND kind <> 'overwritten'
            AND attempt = (SELECT attempt FROM load_runs WHERE run_id = %(run_id)s)
    ) AS superseded,
    (
        SELECT count(*) FROM rejections WHERE run_id = %(run_id)s
            AND attempt = (SELECT attempt FROM load_runs WHERE run_id = %(run_id)s)
    ) AS rejected
FROM (
    SELECT coalesce(sum(read), 0)::bigint AS read, coalesce(sum(unchanged), 0)::bigint AS unchanged
    FROM load_batches WHERE run_id = %(run_id)s
) b
