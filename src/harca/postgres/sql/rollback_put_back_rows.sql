-- Puts rows back that a run overwrote and somebody deleted since.
INSERT INTO vector_embeddings (
    id, content, embedding, metadata, model_id, created_at, updated_at, source, store,
    store_key, run_id
)
SELECT
    p.row_id, s.content, s.embedding, s.metadata, s.model_id, s.created_at, s.row_updated_at,
    s.source, s.store, s.store_key, s.row_run_id
FROM harca_rollback p JOIN superseded s ON s.superseded_id = p.before
WHERE p.place = 'gone'
