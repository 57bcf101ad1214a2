from typing import Any

class OutputSpec:
    is_structured: bool
    json_schema: dict[str, Any]
    schema_name: str
