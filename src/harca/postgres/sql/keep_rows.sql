-- Keeps rows that are about to be replaced.
INSERT INTO superseded (
    run_id, attempt, kind, origin, store, store_key, content, embedding, metadata, model_id,
    created_at, source, row_id, row_run_id, row_updated_at
)
SELECT
    %(run_id)s, %(attempt)s, %(kind)s, 'the table', v.store, v.store_key, v.content,
    v.embedding, v.metadata, v.model_id,
    CASE WHEN %(kind)s = 'overwritten' THEN v.created_at ELSE {created_at} END,
    -- A row of this very run is kept only if somebody has changed it: it is theirs then.
    v.source, v.id, nullif(v.run_id, %(run_id)s), v.updated_at
FROM vector_embeddings v
LEFT JOIN load_runs r USING (run_id)
WHERE v.store = %(store)s AND v.store_key = ANY (%(keys)s)
