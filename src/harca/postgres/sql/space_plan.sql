-- All that decides how a space is searched: pgvector's version, the space's valid index, the
-- settings that are kept with the space.
SELECT
    (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS version,
    found.name, found.method, found.operators, found.parameters, found.rows,
    kept.method AS kept_method, coalesce(kept.effort, '{{}}') AS effort
FROM (SELECT) one
LEFT JOIN (
    SELECT
        c.relname AS name, m.amname AS method, o.opcname AS operators,
        coalesce(c.reloptions, '{{}}') AS parameters, c.reltuples AS rows
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_am m ON m.oid = c.relam
    JOIN pg_opclass o ON o.oid = i.indclass[0]
    WHERE i.indrelid = 'vector_embeddings'::regclass AND i.indisvalid AND c.relname = %(name)s
) found ON true
LEFT JOIN {settings} kept ON kept.model_id = %(model_id)s AND kept.dims = %(dims)s
