-- What some tables take, part by part: rows (with their maps), TOAST, each index.
SELECT
    n.nspname AS schema, t.relname AS table_name, i.relname AS index_name, a.amname AS method,
    x.indisvalid AS is_valid, x.indisprimary AS is_primary,
    CASE WHEN i.oid IS NOT NULL THEN pg_get_indexdef(i.oid) END AS definition,
    CASE
        WHEN i.oid IS NOT NULL THEN pg_relation_size(i.oid)
        ELSE pg_table_size(t.oid) - coalesce(pg_total_relation_size(nullif(t.reltoastrelid, 0)), 0)
    END AS bytes,
    CASE WHEN i.oid IS NULL
        THEN coalesce(pg_total_relation_size(nullif(t.reltoastrelid, 0)), 0)
    END AS toast_bytes,
    CASE WHEN i.oid IS NULL THEN s.n_live_tup ELSE NULL END AS live_rows,
    CASE WHEN i.oid IS NULL THEN s.n_dead_tup ELSE NULL END AS dead_rows,
    si.idx_scan AS scans
FROM unnest(%(tables)s::regclass[]) AS wanted (id)
JOIN pg_class t ON t.oid = wanted.id
JOIN pg_namespace n ON n.oid = t.relnamespace
CROSS JOIN LATERAL (
    SELECT NULL::oid AS indexrelid
    UNION ALL
    SELECT indexrelid FROM pg_index WHERE indrelid = t.oid
) part
LEFT JOIN pg_index x ON x.indexrelid = part.indexrelid
LEFT JOIN pg_class i ON i.oid = part.indexrelid
LEFT JOIN pg_am a ON a.oid = i.relam
LEFT JOIN pg_stat_all_tables s ON s.relid = t.oid
LEFT JOIN pg_stat_all_indexes si ON si.indexrelid = i.oid
ORDER BY t.relname <> 'vector_embeddings', n.nspname, t.relname, i.relname IS NOT NULL, bytes DESC
