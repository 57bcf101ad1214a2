"""Requests made of the rows of a table, by a template or a function."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import nsmallest
from typing import TYPE_CHECKING, Any, TypeVar, cast

from together_batches._protocol import json_codec
from together_batches._schema import response_format
from together_batches._schema.adapters import adapter_of
from together_batches._schema.json_schemas import is_same
from together_batches._text import short
from together_batches._validation import check_callback
from together_batches.errors import UsageError
from together_batches.jsonl._columns import BadCellError, id_in
from together_batches.jsonl._images import Images
from together_batches.jsonl._repeats import Repeats
from together_batches.jsonl._requests import chat_request, invalid
from together_batches.jsonl._tables import Table, check_table, is_read_once, rows_in, table_name
from together_batches.jsonl._templates import Template
from together_batches.rows import BatchRequest

if TYPE_CHECKING:
    import os

    from together_batches._schema.adapters import Schema
    from together_batches.jsonl._columns import Row

Prompt = str | Callable[[Mapping[str, Any]], Sequence[Mapping[str, object]]]
"""A template with the names of columns in braces, or a function from a row to its messages."""

_MOST_PROBLEMS = 1000
_SCHEMA, _TABLE = "schema", "table"
"""Names in fingerprints of entries that are not settings. No parameter can have them."""

T = TypeVar("T")


def requests(
    table: Table,
    *,
    prompt: Prompt,
    model: str,
    custom_id: str = "id",
    system: str | None = None,
    images: str | None = None,
    image_directory: str | os.PathLike[str] | None = None,
    schema: Schema | None = None,
    schema_in_prompt: bool = True,
    **parameters: object,
) -> TableRequests:
    """Return requests for chat completions, one for each row of a table.

    The table is read while the requests are iterated, in parts, so it may exceed the memory. They can be iterated
    again if the table can: a generator cannot.

    Parameters:
        table: a frame of polars or pandas, or another object with ``__arrow_c_stream__``; an iterable of mappings;
            or the path of a CSV file in UTF-8 or of a Parquet file. Frames and Parquet need the extra ``arrow``, or
            pyarrow.
        prompt: the message of the user, in which ``{column}`` stands for the value of that column, and ``{{`` and
            ``}}`` for braces. The whole text between two braces is the name. Or a function from a row to its
            messages, which must return the same whenever it gets the same row.
        model: the model.
        custom_id: the column with the ids: text, or integers, which become text.
        system: the system message, the same for each row and sent as it is.
        images: a column with the image of each row, or a list of images: URLs, ``data:`` URLs, or the paths of files
            in ``image_directory``.
        image_directory: the directory of local images. A file outside of it, also behind a link, is not sent.
        schema: what each answer is to be, sent as ``response_format`` and added to the system message, unless
            ``schema_in_prompt`` is false; as for :func:`chat_request`.
        parameters: parameters of the endpoint, such as ``max_tokens``.

    Raises:
        UsageError: an argument is invalid; while iterating, that the table cannot be read or lacks a column.
        ValidationError: while iterating, values that cannot be used, such as a null or an id that occurs twice;
            ``problems`` has each with its row, from 1, and its column.
    """
    return TableRequests(
        table,
        prompt=prompt,
        model=model,
        custom_id=custom_id,
        system=system,
        images=images,
        image_directory=image_directory,
        schema=schema,
        schema_in_prompt=schema_in_prompt,
        parameters=parameters,
    )


class TableRequests:
    """Requests made of a table, as :func:`requests` returns them: an iterable of :class:`BatchRequest`."""

    def __init__(
        self,
        table: Table,
        *,
        prompt: Prompt,
        model: str,
        custom_id: str,
        system: str | None,
        images: str | None,
        image_directory: str | os.PathLike[str] | None,
        schema: Schema | None,
        schema_in_prompt: bool,
        parameters: Mapping[str, Any],
    ) -> None:
        check_table(table)
        self.name: str = table_name(table)
        """The name of the table in messages."""
        self._table = table
        self._id_column = _column("custom_id", custom_id)
        if images is None and image_directory is not None:
            message = "image_directory is for images: name their column with images"
            raise UsageError(message)
        self._images = None if images is None else Images(_column("images", images), image_directory)
        self._prompt = Template(prompt) if isinstance(prompt, str) else prompt
        self._check_prompt()
        if system is not None and (not isinstance(cast("object", system), str) or not system):
            message = f"system is the text of a message, not {short(system)}"
            raise UsageError(message)
        if "messages" in parameters:
            message = "messages are made of the prompt; pass a function as the prompt to make others"
            raise UsageError(message)
        # Checked once, because all requests have the same.
        body = chat_request("-", model=model, messages=[], schema=schema, **parameters).body
        self._parameters = {name: value for name, value in body.items() if name not in {"model", "messages"}}
        self._system = [] if system is None else [{"role": "system", "content": system}]
        self._instruction = ""
        if schema is not None and schema_in_prompt:
            self._instruction = response_format.instruction(adapter_of(schema))
        self._model = model
        self._columns: list[str] | None = None  # all
        if isinstance(self._prompt, Template):
            columns = [self._id_column, *self._prompt.columns, *([] if images is None else [images])]
            self._columns = list(dict.fromkeys(columns))
        self._is_read = False
        settings = {
            "prompt": prompt if isinstance(prompt, str) else None,
            "model": model,
            "custom_id": custom_id,
            "system": system,
            "images": images,
            "schema_in_prompt": schema_in_prompt,
            **parameters,
        }
        self._fingerprint = {name: _hash_of(value) for name, value in settings.items()}
        if schema is not None:
            # Not its hash: a new version of a library may word it differently.
            self._fingerprint[_SCHEMA] = adapter_of(schema).text.decode()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: a request to {self._model} for each row of {self.name}>"

    @property
    def table(self) -> Table:
        """The table, which is joined with the answers by ``together_batches.tables``."""
        return self._table

    @property
    def id_column(self) -> str:
        """The column with the ids."""
        return self._id_column

    def _check_prompt(self) -> None:
        if isinstance(self._prompt, Template):
            if not self._prompt.columns and self._images is None:
                single = "single " if "{" in self._prompt.fill({}) else ""  # {{city}} is text
                message = (
                    "the prompt names no column, so all requests would be equal: write the name of a column in "
                    f"{single}braces, such as {{city}}"
                )
                raise UsageError(message)
            return
        given: object = self._prompt
        if not callable(given):
            message = f"prompt is a template, or a function from a row to its messages, not {short(given)}"
            raise UsageError(message)
        check_callback("prompt", given)
        if self._images is not None:
            message = "images are for a prompt that is a template; a function puts them into the messages itself"
            raise UsageError(message)

    @property
    def fingerprint(self) -> Mapping[str, str]:
        """A hash of each setting, and one of the ``table`` with what its rows become; and the JSON schema, if any.

        The table is read for it, unless the requests were iterated to their end before; but one that can be read only
        once is not, and its hash is then absent. The content of local images is not included.
        """
        if _TABLE not in self._fingerprint and not is_read_once(self._table):
            for _ in self._each(_nothing):
                pass
        return dict(self._fingerprint)

    def changed_since(self, before: Mapping[str, str]) -> list[str]:
        """Return the names of the settings that differ from those of an earlier fingerprint, or that of the table.

        A schema in other words does not count as a difference.
        """
        now = self.fingerprint
        changed = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        schemas = [json.loads(each[_SCHEMA]) for each in (before, now) if _SCHEMA in each]
        if _SCHEMA in changed and len(schemas) == 2 and is_same(*schemas):
            changed.remove(_SCHEMA)
        # Another prompt makes something else of the same table. A table may also be readable only once.
        if _TABLE in changed and (len(changed) > 1 or _TABLE not in now):
            changed.remove(_TABLE)
        return changed

    def __iter__(self) -> Iterator[BatchRequest]:
        return self._each(self._request)

    def _each(self, make: Callable[[str, Any], T]) -> Iterator[T]:
        """Yield what is made of each row; after the first problem only search for others, and raise all of them."""
        if self._is_read and is_read_once(self._table):
            message = "the table can be read only once, and was: make it again, or pass a list of its rows"
            raise UsageError(message)
        self._is_read = True
        ids, digest, problems = Repeats(), hashlib.sha256(), list[str]()
        for number, row in enumerate(rows_in(self._table, self._columns), start=1):
            try:
                custom_id, content = self._content(row, number)
                made = make(custom_id, content)
            except BadCellError as error:
                column = "" if error.column is None else f", column {short(error.column)}"
                problems.append(f"row {number}{column}: {error.problem}")
                ids.skip()
                if len(problems) == _MOST_PROBLEMS:
                    break
                continue
            ids.add(custom_id.encode())
            # Not repr, which writes the characters that Python's version knows.
            digest.update(ascii((custom_id, content)).encode())
            if not problems:
                yield made
        left = _MOST_PROBLEMS - len(problems)
        problems += [
            f"row {row + 1}, column {short(self._id_column)}: the id must be unique, and row {first + 1} has it too"
            for row, first in nsmallest(left, ids.pairs())
        ]
        if problems:
            raise invalid(problems, f"{self.name}: ")
        self._fingerprint[_TABLE] = digest.hexdigest()

    def _content(self, row: Row, number: int) -> tuple[str, object]:
        """Return the id of a row, and what its messages are made of."""
        custom_id = id_in(row, self._id_column)
        if isinstance(self._prompt, Template):
            text = self._prompt.fill(row)
            return custom_id, text if self._images is None else (text, self._images.names_in(row))
        try:
            messages: object = self._prompt(row)
        except Exception as error:
            error.add_note(f"in the prompt of row {number} of {self.name}")
            raise
        if isinstance(messages, Sequence) and not isinstance(messages, str | bytes):
            found = list(cast("Sequence[object]", messages))
            if found and all(isinstance(message, Mapping) for message in found):
                return custom_id, found
        raise BadCellError(None, f"the prompt returned {short(messages)}; it must return a list of messages")

    def _request(self, custom_id: str, content: Any) -> BatchRequest:
        """Return the request of a row."""
        messages: list[Any]
        if not isinstance(self._prompt, Template):
            messages = content
        elif self._images is None:
            messages = [{"role": "user", "content": content}]
        else:
            text, names = content
            urls = [{"type": "image_url", "image_url": {"url": self._images.url_of(name)}} for name in names]
            messages = [{"role": "user", "content": [{"type": "text", "text": text}, *urls]}]
        messages = [*self._system, *messages]
        if self._instruction:
            messages = response_format.with_instruction(messages, self._instruction)
        body = {"model": self._model, "messages": messages, **self._parameters}
        return BatchRequest(custom_id, body)


def _nothing(custom_id: str, content: object) -> None:
    """Make no request."""


def _column(name: str, value: str) -> str:
    given: object = value
    if not isinstance(given, str) or not given:
        message = f"{name} is the name of a column, not {short(given)}"
        raise UsageError(message)
    return value


def _hash_of(value: object) -> str:
    """Return the hash of a setting, whatever the order of its keys."""
    plain = json.loads(json_codec.encode(value))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
