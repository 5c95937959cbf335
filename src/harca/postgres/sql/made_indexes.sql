-- Indexes of the table by the beginning of their names, with what they are made of.
SELECT
    c.relname AS name, m.amname AS method, o.opcname AS operators,
    coalesce(c.reloptions, '{}') AS parameters, i.indisvalid AS valid,
    pg_relation_size(c.oid) AS bytes, obj_description(c.oid, 'pg_class') AS comment
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
JOIN pg_am m ON m.oid = c.relam
JOIN pg_opclass o ON o.oid = i.indclass[0]
WHERE i.indrelid = 'vector_embeddings'::regclass AND starts_with(c.relname::text, %(prefix)s)
ORDER BY name
