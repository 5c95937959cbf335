-- Stands for what a row is labelled with and its digest leaves out.
sha256(convert_to(
    concat_ws(
        ' ', quote_nullable({row}.store_key), quote_nullable({row}.source),
        quote_nullable({row}.run_id)
    ),
    'UTF8'
))
