-- What the ledger holds of a run, table by table: number of rows and a hash, whatever their
-- order. Times and bytes are hashed as no setting of a session prints them.
WITH entries AS (
    SELECT
        'load_runs' AS name,
        jsonb_build_array(
            store, format, revision, attempt, options, read, loaded, unchanged, superseded,
            rejected, notes -> 'kept_keys', extract(epoch FROM started_at)::text
        ) AS entry
    FROM load_runs WHERE run_id = %(run_id)s
    UNION ALL
    SELECT
        'load_batches',
        jsonb_build_array(
            attempt, number, read, loaded, unchanged, superseded, rejected, first_origin,
            last_origin, extract(epoch FROM committed_at)::text
        )
    FROM load_batches WHERE run_id = %(run_id)s
    UNION ALL
    SELECT
        'rejections',
        jsonb_build_array(
            attempt, origin, reason, detail, encode(sha256(payload), 'hex'),
            extract(epoch FROM rejected_at)::text
        )
    FROM rejections WHERE run_id = %(run_id)s
    UNION ALL
    SELECT
        'superseded',
        jsonb_build_array(
            attempt, kind, origin, store, source, row_id, row_run_id,
            extract(epoch FROM row_updated_at)::text, encode({loser_digest}, 'hex')
        )
    FROM superseded s WHERE run_id = %(run_id)s
),
hashed AS (SELECT name, sha256(convert_to(entry::text, 'UTF8')) AS hash FROM entries)
SELECT
    name,
    count(*) || ':' || encode(int8send((
        sum(('x' || encode(substr(hash, 1, 8), 'hex'))::bit(64)::bigint)
        %% 9223372036854775807
    )::bigint), 'hex') AS seal
FROM hashed
GROUP BY name
ORDER BY name
