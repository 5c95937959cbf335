-- What is to be known of some tables to back them up: columns that are stored, of them those
-- with vectors and those with sequences, and what the table is made of.
SELECT
    n.nspname AS schema,
    c.relname AS name,
    wanted.origin,
    ARRAY(
        SELECT attname FROM pg_attribute
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
        ORDER BY attnum
    ) AS columns,
    ARRAY(
        SELECT attname FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND typname = 'vector'
    ) AS vectors,
    (
        SELECT coalesce(jsonb_object_agg(attname, sequence), '{}')
        FROM pg_attribute
        CROSS JOIN LATERAL pg_get_serial_sequence(c.oid::regclass::text, attname) sequence
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND sequence IS NOT NULL
    ) AS sequences,
    (
        SELECT format('CREATE TABLE %%I.%%I (%%s)', n.nspname, c.relname, string_agg(
            format('%%I %%s', attname, format_type(atttypid, atttypmod))
            || CASE
                WHEN adbin IS NULL THEN ''
                WHEN attgenerated = '' THEN ' DEFAULT ' || pg_get_expr(adbin, adrelid)
                ELSE format(' GENERATED ALWAYS AS (%%s) STORED', pg_get_expr(adbin, adrelid))
            END
            || CASE WHEN attnotnull THEN ' NOT NULL' ELSE '' END,
            ', ' ORDER BY attnum
        ))
        FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
    ) AS creating,
    ARRAY(
        SELECT format(
            'ALTER TABLE %%I.%%I ADD CONSTRAINT %%I %%s', n.nspname, c.relname, conname,
            pg_get_constraintdef(oid)
        )
        FROM pg_constraint WHERE conrelid = c.oid AND contype IN ('p', 'u', 'c') ORDER BY conname
    ) AS constraints,
    ARRAY(
        SELECT pg_get_indexdef(indexrelid) FROM pg_index
        WHERE indrelid = c.oid AND indisvalid
            AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
        ORDER BY 1
    ) AS indexes
FROM unnest(%(tables)s::text[], %(origins)s::text[]) WITH ORDINALITY
    AS wanted (name, origin, place)
JOIN pg_class c ON c.oid = to_regclass(wanted.name)
JOIN pg_namespace n ON n.oid = relnamespace
WHERE c.relkind = 'r'
ORDER BY place
