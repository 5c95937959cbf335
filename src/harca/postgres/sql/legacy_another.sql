-- Nothing keeps this table from holding an id twice: another row takes the place.
        FOR other IN SELECT * FROM {table} t WHERE t.id = OLD.id LIMIT 1 LOOP
            {upsert}
        END LOOP;
