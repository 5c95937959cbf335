IF ({reason}) IS NULL THEN
            INSERT INTO vector_embeddings AS v (
                content, embedding, metadata, model_id, created_at, updated_at, source, store,
                store_key, run_id
            )
            VALUES (
                {content}, {embedding}, {metadata}, {model_id}, {created_at}, {updated_at},
                {store}, {store}, {row}.id::text, {run_id}
            )
            ON CONFLICT (store, store_key) DO UPDATE SET
                content = excluded.content, embedding = excluded.embedding,
                metadata = excluded.metadata, created_at = excluded.created_at,
                updated_at = {touched}
            WHERE (
                v.content, vector_send(v.embedding), v.metadata::text, v.created_at,
                {old_updated_at}
            ) IS DISTINCT FROM (
                excluded.content, vector_send(excluded.embedding), excluded.metadata::text,
                excluded.created_at, {new_updated_at}
            );
        ELSE
            DELETE FROM vector_embeddings WHERE store = {store} AND store_key = {row}.id::text;
        END IF;
