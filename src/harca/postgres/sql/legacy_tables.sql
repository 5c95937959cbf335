-- What is to be known of some tables before they are consolidated, and what depends on them.
SELECT
    n.nspname AS schema,
    c.relname AS name,
    c.relkind::text AS kind,
    pg_get_userbyid(c.relowner) AS owner,
    pg_has_role(c.relowner, 'USAGE') AS is_owned,
    has_schema_privilege(n.oid, 'CREATE')
        AND (me.rolsuper OR has_schema_privilege(c.relowner, n.oid, 'CREATE')) AS can_create,
    c.relforcerowsecurity AND NOT (me.rolsuper OR me.rolbypassrls) AS hides_rows,
    c.relrowsecurity AS row_security,
    c.relispartition
        OR EXISTS (SELECT FROM pg_inherits WHERE c.oid IN (inhrelid, inhparent)) AS inherits,
    EXISTS (SELECT FROM pg_rewrite WHERE ev_class = c.oid AND c.relkind = 'r') AS has_rules,
    EXISTS (
        SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid
        WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL
            AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum AND a.attname = 'id'
    ) AS has_key,
    ARRAY(
        SELECT pubname FROM pg_publication_tables p
        WHERE p.schemaname = n.nspname AND p.tablename = c.relname ORDER BY 1
    ) AS publications,
    (
        SELECT coalesce(jsonb_object_agg(a.attname, t.typname), '{}')
        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    ) AS types,
    ARRAY(
        SELECT a.attname FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
    ) AS columns,
    ARRAY(
        SELECT a.attname FROM pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attnotnull
    ) AS not_null,
    ARRAY(
        SELECT 'view ' || r.ev_class::regclass
        FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
        WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = c.oid AND r.ev_class <> c.oid
        UNION
        SELECT format('foreign key %%s of %%s', conname, conrelid::regclass)
        FROM pg_constraint WHERE confrelid = c.oid AND contype = 'f' AND conrelid <> c.oid
        UNION
        SELECT 'policy ' || polname FROM pg_policy WHERE polrelid = c.oid
        UNION
        SELECT 'trigger ' || tgname FROM pg_trigger
        WHERE tgrelid = c.oid AND NOT tgisinternal AND tgname !~ '^!harca_'
        UNION
        SELECT 'function ' || p.oid::regprocedure
        FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid
        WHERE d.classid = 'pg_proc'::regclass AND d.refobjid IN (c.oid, c.reltype)
        UNION
        -- Bodies are text: what they name, nothing but reading them tells.
        SELECT 'function ' || p.oid::regprocedure
        FROM pg_proc p JOIN pg_namespace pn ON pn.oid = p.pronamespace
        WHERE p.prosrc ~ ('\m' || c.relname || '\M') AND pn.nspname !~ '^pg_|^information_schema$'
            AND p.proname !~ '^harca_'
        ORDER BY 1
    ) AS dependents
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_roles me ON me.rolname = current_user
WHERE c.relname IN ('embeddings', 'code_vectors')
    AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relpersistence <> 't'
    AND n.nspname = ANY (%(schemas)s)
ORDER BY n.nspname, c.relname
