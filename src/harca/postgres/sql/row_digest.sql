sha256(
    -- Rows that somebody has put in without a key, with metadata that are no object or with a
    -- date that is none are digested too, so that they are found.
    int4send(octet_length(convert_to(coalesce({row}.store_key, ''), 'UTF8')))
    || convert_to(coalesce({row}.store_key, ''), 'UTF8')
    || int4send(octet_length(convert_to({row}.model_id, 'UTF8')))
    || convert_to({row}.model_id, 'UTF8')
    || int4send(octet_length(convert_to({row}.content, 'UTF8')))
    || convert_to({row}.content, 'UTF8')
    || int4send(octet_length(convert_to(({metadata})::text, 'UTF8')))
    || convert_to(({metadata})::text, 'UTF8')
    || coalesce(
        '\x01'::bytea || CASE
            WHEN isfinite({created_at})
            THEN int8send((extract(epoch FROM {created_at}) * 1000000)::bigint)
            ELSE timestamptz_send({created_at})
        END,
        '\x00'::bytea
    )
    || vector_send({row}.embedding)
)
