-- {what}
CREATE OR REPLACE FUNCTION {function}({arguments}) RETURNS {result} LANGUAGE plpgsql STABLE
{settings}
SET search_path = pg_catalog, {vectors}, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $search$
#variable_conflict use_column
DECLARE
    query CONSTANT vector := $1;
    wanted CONSTANT bigint := {wanted};
    dims CONSTANT integer := vector_dims($1);
    nearest integer[];
BEGIN
    IF query IS NULL THEN
        RETURN;
    END IF;
    -- As the space's index has it: model and type are written out, not passed.
    EXECUTE format(
        'SELECT array_agg(row_id) FROM (SELECT s.row_id FROM {rows} s '
        'WHERE s.model_id = %L AND s.dims = %s{filter} '
        'ORDER BY s.embedding::vector(%s) <=> $1::vector(%s) LIMIT $2) n',
        {model_id}, dims, dims, dims
    ) INTO nearest USING query, wanted{passed};
    IF wanted IS NULL OR coalesce(cardinality(nearest), 0) < wanted THEN
        -- An index scan gives up in the end, and knows no zero vectors.
        EXECUTE format(
            'SELECT array_agg(row_id) FROM (SELECT s.row_id FROM {rows} s '
            'WHERE s.dims = %s{filter} ORDER BY s.embedding <=> $1 LIMIT $2) n',
            dims
        ) INTO nearest USING query, wanted{passed};
    END IF;
    RETURN QUERY EXECUTE format(
        'SELECT {columns} FROM (SELECT s.*, 1 - (s.embedding <=> $1) AS similarity '
        'FROM {rows} s WHERE s.row_id = ANY ($2)) s {threshold}'
        'ORDER BY s.similarity = ''NaN'', s.similarity DESC, s.row_id'
    ) USING query, nearest{passed};
END
$search$
