-- Fingerprint of a table's rows, whatever their order: all of the columns that are given.
SELECT
    get_byte(digest, 0) AS bucket,
    count(*) AS count,
    sum(('x' || encode(substr(digest, 2, 8), 'hex'))::bit(64)::bigint) AS total
FROM (SELECT {digest} AS digest FROM {table} t) digests
GROUP BY bucket
