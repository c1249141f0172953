"""`python -m tests.guards.schema`: write spaces/schema.json from the models, for editors to complete a space file."""

from __future__ import annotations

import json
from pathlib import Path

from search.settings import json_schema, space_file_model
from trainables.catalogue import CONFIGS
from trainables.data.config import DataConfig, FoldsConfig

PATH = Path(__file__).parents[2] / "spaces" / "schema.json"


def text() -> str:
    """Return the schema as the file holds it."""
    model = space_file_model(DataConfig, FoldsConfig, tuple(CONFIGS))
    return json.dumps(json_schema(model), indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
