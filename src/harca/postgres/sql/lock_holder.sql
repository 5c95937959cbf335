-- Who holds an advisory lock of this database. What a role may not see of another is null.
SELECT l.pid, a.application_name AS application, a.usename AS "user",
    coalesce(host(a.client_addr), CASE WHEN a.backend_start IS NOT NULL THEN 'a local socket' END)
        AS client,
    a.backend_start AS since
FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
    AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
    AND ((l.classid::bigint << 32) | l.objid::bigint) = %(key)s;
