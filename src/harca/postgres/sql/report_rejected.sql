-- Rejections by reason with the first few of each, as runs left them that were not taken back.
WITH counted AS (
    SELECT j.reason, count(*) AS records
    FROM rejections j JOIN load_runs r USING (run_id)
    WHERE r.status <> 'rolled back'
    GROUP BY j.reason
)
SELECT c.reason, c.records, e.run_id, e.origin, e.detail, e.size, e.start
FROM counted c
CROSS JOIN LATERAL (
    SELECT
        j.rejection_id, j.run_id, left(j.origin, %(most)s) AS origin,
        left(j.detail, %(most)s) AS detail, octet_length(j.payload) AS size,
        CASE WHEN %(texts)s THEN substr(j.payload, 1, %(most)s) END AS start
    FROM rejections j JOIN load_runs r USING (run_id)
    WHERE j.reason = c.reason AND r.status <> 'rolled back'
    ORDER BY j.rejection_id
    LIMIT %(examples)s
) e
ORDER BY c.records DESC, c.reason, e.rejection_id
