-- Brings what is changed in the new table back into the old one, which the application sees.
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, {home}, {vectors}, pg_temp AS $back$
BEGIN
    IF TG_OP = 'DELETE' OR (OLD.store, OLD.store_key) IS DISTINCT FROM (NEW.store, NEW.store_key)
    THEN
        DELETE FROM {table} t WHERE t.id = OLD.store_key::uuid{one_of_them};
    ELSE
        UPDATE {table} t SET {assignments}
        WHERE t.id = OLD.store_key::uuid{one_of_them} AND (
            {content}, vector_send({embedding}), ({metadata})::text
        ) IS DISTINCT FROM (NEW.content, vector_send(NEW.embedding), NEW.metadata::text);
    END IF;
    RETURN NULL;
END
$back$
