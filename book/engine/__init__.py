"""The program behind `make book`, `make pdf` and `make notebooks`: convert, execute, keep, render."""

import sys

# None can be imported of it: jsonschema would have it build a grammar, for a second in every process, against
# which no address in a notebook is ever checked.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
