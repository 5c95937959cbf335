-- Brings what is written to the old table over, in the transaction that writes it. Runs with
-- the rights of who consolidated: the application need not know the new table.
CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, {home}, {vectors}, pg_temp AS $mirror$
DECLARE
    other record;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM vector_embeddings WHERE store = {store};
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND OLD.id <> NEW.id THEN
        {one_at_a_time}
        DELETE FROM vector_embeddings WHERE store = {store} AND store_key = OLD.id::text;
        {another}
    END IF;
    IF TG_OP <> 'DELETE' THEN
        {upsert}
    END IF;
    RETURN NULL;
END
$mirror$
