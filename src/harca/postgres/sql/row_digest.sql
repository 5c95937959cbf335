sha256(
    -- Rows that somebody has put in without a key are digested too, so that they are found.
    int4send(octet_length(convert_to(coalesce({row}.store_key, ''), 'UTF8')))
    || convert_to(coalesce({row}.store_key, ''), 'UTF8')
    || int4send(octet_length(convert_to({row}.model_id, 'UTF8')))
    || convert_to({row}.model_id, 'UTF8')
    || int4send(octet_length(convert_to({row}.content, 'UTF8')))
    || convert_to({row}.content, 'UTF8')
    || int4send(octet_length(convert_to(({row}.metadata - %(volatile)s::text[])::text, 'UTF8')))
    || convert_to(({row}.metadata - %(volatile)s::text[])::text, 'UTF8')
    || coalesce(
        '\x01'::bytea || int8send((extract(epoch FROM {created_at}) * 1000000)::bigint),
        '\x00'::bytea
    )
    || vector_send({row}.embedding)
)
