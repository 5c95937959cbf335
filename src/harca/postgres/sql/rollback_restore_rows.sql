-- Gives rows that a run overwrote what they held before.
UPDATE vector_embeddings v
SET
    content = s.content, embedding = s.embedding, metadata = s.metadata,
    model_id = s.model_id, created_at = s.created_at, updated_at = s.row_updated_at,
    source = s.source, store = s.store, store_key = s.store_key, run_id = s.row_run_id
FROM harca_rollback p JOIN superseded s ON s.superseded_id = p.before
WHERE p.place = 'row' AND v.id = p.row_id
