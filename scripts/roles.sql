-- Makes two roles and a schema for harca: one role that can migrate and do no more, one that can
-- only look. Plain SQL, for any client, in the database that harca is to work in:
--
--     psql -v ON_ERROR_STOP=1 -f scripts/roles.sql "$(harca db url)"
--
-- It takes a superuser, or the owner of the database with CREATEROLE. The extension comes first,
-- once, by a superuser where it is not trusted: CREATE EXTENSION vector.
--
-- It can be run again. Names are settings, these by default; to choose others:
--
--     PGOPTIONS='-c harca.migrator=mover -c harca.reader=looker -c harca.schema=vectors' psql ...
--
-- No password is set here, so that none is in a file or a log: do it with psql's \password.
DO $roles$
DECLARE
    migrator text := coalesce(nullif(current_setting('harca.migrator', true), ''), 'harca_migrator');
    reader text := coalesce(nullif(current_setting('harca.reader', true), ''), 'harca_reader');
    tables text := coalesce(nullif(current_setting('harca.schema', true), ''), 'harca');
    extension_schema text;
    one text;
    path text;
BEGIN
    SELECT nspname INTO extension_schema
    FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = 'vector';
    IF extension_schema IS NULL THEN
        RAISE EXCEPTION 'the extension vector is not in database "%"', current_database()
            USING HINT = 'Have a superuser run CREATE EXTENSION vector in it first.';
    END IF;
    IF EXISTS (
        SELECT FROM pg_namespace WHERE nspname = tables AND pg_get_userbyid(nspowner) <> migrator
    ) THEN
        RAISE EXCEPTION 'schema "%" is there already, and not of role "%"', tables, migrator
            USING HINT = 'Choose another with -c harca.schema=NAME.';
    END IF;

    FOREACH one IN ARRAY ARRAY[migrator, reader] LOOP
        IF EXISTS (
            SELECT FROM pg_roles WHERE rolname = one
                AND (rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls)
        ) THEN
            RAISE EXCEPTION 'role "%" is there already and can do more than harca needs', one
                USING HINT = 'Choose another with -c harca.migrator=NAME or -c harca.reader=NAME.';
        END IF;
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = one) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', one);
        END IF;
        EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO %I', current_database(), one);
        IF NOT has_schema_privilege(one, extension_schema, 'USAGE') THEN
            EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', extension_schema, one);
        END IF;
        -- Here alone, and nobody else's schema before harca's own.
        path := format('%I', tables)
            || CASE WHEN extension_schema <> tables THEN format(', %I', extension_schema) ELSE '' END;
        EXECUTE format('ALTER ROLE %I IN DATABASE %I SET search_path = %s',
            one, current_database(), path);
    END LOOP;

    -- Who is no superuser can make things for a role only as one of its members.
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT %I TO %I', migrator, current_user);
    END IF;
    EXECUTE format('CREATE SCHEMA IF NOT EXISTS %I AUTHORIZATION %I', tables, migrator);
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', tables, reader);
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO %I', tables, reader);
    EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I GRANT SELECT ON TABLES TO %I',
        migrator, tables, reader);
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('REVOKE %I FROM %I', migrator, current_user);
    END IF;
END
$roles$;
