"""The options that say what a store is and how it is loaded, shared by commands."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from harca.options import LoadOptions

# A text and no path: `https://` would lose a slash.
StoreArgument = Annotated[
    str, typer.Argument(help="Folder, file, archive or URL that holds the vectors.")
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", help="What the store is called in the table; its path by default."),
]
ModelOption = Annotated[str | None, typer.Option(help="Model label for records that name none.")]
SourceOption = Annotated[
    str | None, typer.Option(help="Label for the column source, of all records.")
]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", help="The store's format, if it is not to be told by its contents."),
]
RecordsOption = Annotated[
    str | None,
    typer.Option(help="Where the records are: keys in JSON, a table, a collection, an array."),
]
IdOption = Annotated[
    str | None, typer.Option(help="The field that is the key; - for where a record stands.")
]
TextOption = Annotated[str | None, typer.Option(help="The field that is the text.")]
VectorOption = Annotated[str | None, typer.Option(help="The field that is the embedding.")]
MetadataOption = Annotated[str | None, typer.Option(help="The field that holds the metadata.")]
ModelFieldOption = Annotated[
    str | None, typer.Option(help="The field that names the model of a record.")
]
CreatedOption = Annotated[str | None, typer.Option(help="The field that is the date.")]
MappingOption = Annotated[
    Path | None, typer.Option(help="A TOML file with any of these options; see docs/formats.md.")
]
OnConflictOption = Annotated[
    str,
    typer.Option(
        metavar="newest|oldest|keep|error",
        help="Which contents stay when one key has several: the newest or oldest by date; "
        "keep the row that an earlier run loaded; or stop and take this run back.",
    ),
]
ExpiredOption = Annotated[
    str, typer.Option(metavar="keep|skip", help="What is done with expired records.")
]
BatchRowsOption = Annotated[
    int | None, typer.Option(min=1, help="Records per transaction (1,000).")
]
MaxRejectsOption = Annotated[
    int | None, typer.Option(min=0, help="Accept this many rejected records, stop at more.")
]


def load_options(**given: object) -> "LoadOptions":
    """Return the options that were given on the command line."""
    from harca.options import LoadOptions

    return LoadOptions.from_text(
        {name: str(value) for name, value in given.items() if value is not None}
    )
