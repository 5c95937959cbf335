sha256(
    int4send(octet_length(convert_to({row}.store_key, 'UTF8')))
    || convert_to({row}.store_key, 'UTF8')
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
