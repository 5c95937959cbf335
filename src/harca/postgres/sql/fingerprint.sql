-- Fingerprint of a store's rows, and of the records that lost against them in the last
-- run: together they are all that the store holds. Rows of earlier runs that the operator
-- had kept instead of a record of the store are none of it. One of the rows' labels comes
-- with it, from the same scan.
WITH entries AS (
    SELECT {row_digest} AS digest, {label_hash} AS label
    FROM vector_embeddings v
    LEFT JOIN load_runs r USING (run_id)
    WHERE v.store = %(store)s AND NOT {outlived}
    UNION ALL
    SELECT {loser_digest}, NULL
    FROM superseded s
    WHERE s.run_id = %(run_id)s AND s.kind <> 'overwritten'
        AND s.attempt = (SELECT attempt FROM load_runs WHERE run_id = %(run_id)s)
),
-- Grouping sets at once would keep the server from working in parallel.
pairs AS (
    SELECT
        get_byte(digest, 0) AS bucket,
        get_byte(label, 0) %% 16 AS label_bucket,
        count(*) AS count,
        sum(('x' || encode(substr(digest, 2, 8), 'hex'))::bit(64)::bigint) AS total,
        sum(('x' || encode(substr(label, 2, 8), 'hex'))::bit(64)::bigint) AS label_total
    FROM entries
    GROUP BY 1, 2
)
SELECT
    coalesce(bucket, label_bucket) AS bucket,
    sum(count)::bigint AS count,
    CASE WHEN bucket IS NULL THEN sum(label_total) ELSE sum(total) END AS total,
    bucket IS NULL AS is_label
FROM pairs
GROUP BY GROUPING SETS ((bucket), (label_bucket))
HAVING coalesce(bucket, label_bucket) IS NOT NULL
