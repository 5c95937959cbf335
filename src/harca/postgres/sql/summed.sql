-- Fingerprint of digests, whatever their order: number and sum, by their first byte.
SELECT
    get_byte(digest, 0) AS bucket,
    count(*) AS count,
    sum(('x' || encode(substr(digest, 2, 8), 'hex'))::bit(64)::bigint) AS total
FROM ({digests}) digests
GROUP BY bucket
