-- A valid index by name, with what it is made of.
SELECT
    c.relname AS name, m.amname AS method, o.opcname AS operators,
    coalesce(c.reloptions, '{}') AS parameters
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am m ON m.oid = c.relam
JOIN pg_opclass o ON o.oid = i.indclass[0]
WHERE i.indrelid = 'vector_embeddings'::regclass AND i.indisvalid AND c.relname = %(name)s
