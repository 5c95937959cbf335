-- Rows of the old table that are not in the new one as they are, and the other way round. An
-- id that the old table holds twice is there if one of its rows is. Digests are joined, not
-- the values: a million embeddings fit no memory.
SELECT
    coalesce(o.key, v.key) AS store_key,
    min(CASE
        WHEN v.key IS NULL THEN 'missing'
        WHEN o.key IS NULL THEN 'extra'
        ELSE concat_ws(', ',
            CASE WHEN v.content <> o.content THEN 'content' END,
            CASE WHEN v.embedding <> o.embedding THEN 'embedding' END,
            CASE WHEN v.metadata <> o.metadata THEN 'metadata' END,
            CASE WHEN v.created_at IS DISTINCT FROM o.created_at THEN 'created_at' END)
    END) AS difference
FROM (
    SELECT
        t.id::text AS key,
        sha256(convert_to({content}, 'UTF8')) AS content,
        sha256(vector_send(e.embedding)) AS embedding,
        sha256(convert_to(({metadata})::text, 'UTF8')) AS metadata,
        {created_at} AS created_at
    FROM {table} t
    CROSS JOIN LATERAL (SELECT {embedding} AS embedding OFFSET 0) e
    WHERE ({reason}) IS NULL
) o
FULL JOIN (
    SELECT
        store_key AS key,
        sha256(convert_to(content, 'UTF8')) AS content,
        sha256(vector_send(embedding)) AS embedding,
        sha256(convert_to(metadata::text, 'UTF8')) AS metadata,
        created_at
    FROM vector_embeddings WHERE store = {store}
) v ON v.key = o.key
GROUP BY 1
HAVING bool_and(
    (v.key IS NULL, v.content, v.embedding, v.metadata, v.created_at)
    IS DISTINCT FROM (o.key IS NULL, o.content, o.embedding, o.metadata, o.created_at)
)
