-- A valid index by name, with what it is made of.
SELECT
    c.relname AS name, m.amname AS method, pg_get_indexdef(i.indexrelid) AS definition,
    coalesce(c.reloptions, '{}') AS parameters
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am m ON m.oid = c.relam
WHERE i.indrelid = 'vector_embeddings'::regclass AND i.indisvalid AND c.relname = %(name)s
