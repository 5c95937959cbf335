-- The spaces of the table. From one to the next by the index on (model_id, dims): to count
-- all rows would read the whole index. That of a soak is left out.
WITH RECURSIVE found AS (
    (
        SELECT model_id, dims FROM vector_embeddings
        ORDER BY model_id, dims LIMIT 1
    )
    UNION ALL
    SELECT following.model_id, following.dims
    FROM found
    CROSS JOIN LATERAL (
        SELECT v.model_id, v.dims FROM vector_embeddings v
        WHERE (v.model_id, v.dims) > (found.model_id, found.dims)
        ORDER BY v.model_id, v.dims LIMIT 1
    ) following
)
SELECT model_id, dims FROM found WHERE NOT starts_with(model_id, %(soak)s) ORDER BY model_id, dims
