-- Fingerprint of a store's rows, and of the records that lost against them in the last
-- run: together they are all that the store holds. Rows of earlier runs that the operator
-- had kept instead of a record of the store are none of it.
WITH entries AS (
    SELECT {row_digest} AS digest
    FROM vector_embeddings v
    LEFT JOIN load_runs r USING (run_id)
    WHERE v.store = %(store)s AND NOT {outlived}
    UNION ALL
    SELECT {loser_digest}
    FROM superseded s
    WHERE s.run_id = %(run_id)s AND s.kind <> 'overwritten'
        AND s.attempt = (SELECT attempt FROM load_runs WHERE run_id = %(run_id)s)
)
SELECT
    get_byte(digest, 0) AS bucket,
    count(*) AS count,
    sum(('x' || encode(substr(digest, 2, 8), 'hex'))::bit(64)::bigint) AS total
FROM entries
GROUP BY bucket
