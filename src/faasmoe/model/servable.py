"""A process that tells whether the config and tokenizer in a folder can be served.

For those who have to know before they fetch the weights, and go without torch (`model.hub`). Called with the folder,
it writes one line of JSON: the name of the error and its message, or null and nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from faasmoe.errors import UserError
from faasmoe.model.lean import import_transformers


def main() -> None:
    """Look into the folder that is named, and tell."""
    folder = Path(sys.argv[1])
    import_transformers()
    from faasmoe.model.plan import describe  # noqa: PLC0415

    answer: list[str | None] = [None, ""]
    try:
        describe(folder)
    except UserError as error:
        answer = [type(error).__name__, str(error)]
    sys.stdout.write(f"{json.dumps(answer)}\n")


if __name__ == "__main__":
    main()
