-- Records per space: a store's rows, and the records that lost against them.
SELECT model_id, dims, sum(records)::bigint AS records
FROM (
    SELECT model_id, dims, count(*) AS records
    FROM vector_embeddings v WHERE store = %(store)s AND NOT {outlived}
    GROUP BY model_id, dims
    UNION ALL
    SELECT model_id, vector_dims(embedding), count(*)
    FROM superseded WHERE run_id = %(run_id)s AND kind <> 'overwritten'
        AND attempt = (SELECT attempt FROM load_runs WHERE run_id = %(run_id)s)
    GROUP BY 1, 2
) counted
GROUP BY model_id, dims
ORDER BY model_id, dims
