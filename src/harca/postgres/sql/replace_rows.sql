-- Gives rows the contents staged for them; their ids stay.
UPDATE vector_embeddings v
SET
    content = n.content, embedding = n.embedding, metadata = n.metadata,
    model_id = n.model_id, created_at = n.created_at, updated_at = n.updated_at,
    source = n.source, run_id = n.run_id
FROM harca_stage n
WHERE v.store = n.store AND v.store_key = n.store_key
