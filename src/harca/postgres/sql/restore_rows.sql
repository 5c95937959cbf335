-- Gives rows that a run overwrote what they held before.
UPDATE vector_embeddings v
SET
    content = s.content, embedding = s.embedding, metadata = s.metadata,
    model_id = s.model_id, created_at = s.created_at, updated_at = s.row_updated_at,
    source = s.source, run_id = s.row_run_id
FROM superseded s
WHERE s.run_id = %(run_id)s AND s.kind = 'overwritten'
    AND v.id = s.row_id AND v.run_id = %(run_id)s
