-- Drops contents that lost in interrupted attempts and that the last one has noted again, or
-- that stand in the table. One whose file has gone meanwhile is the only copy.
DELETE FROM superseded e
WHERE e.run_id = %(run_id)s AND e.attempt < %(attempt)s AND e.kind <> 'overwritten' AND EXISTS (
    SELECT FROM (
        SELECT content, embedding, metadata, model_id FROM superseded l
        WHERE l.run_id = e.run_id AND l.attempt = %(attempt)s AND l.store = e.store
            AND l.store_key = e.store_key
        UNION ALL
        SELECT content, embedding, metadata, model_id FROM vector_embeddings v
        WHERE v.store = e.store AND v.store_key = e.store_key
    ) o
    WHERE (o.content, vector_send(o.embedding), o.metadata::text, o.model_id)
        = (e.content, vector_send(e.embedding), e.metadata::text, e.model_id)
)
