"""Requests made of tables: their messages, ids and images, what is refused, and fingerprints."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest

from together_batches import BatchRequest, UsageError, ValidationError, jsonl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_MODEL = "openai/gpt-oss-20b"
_PNG = b"\x89PNG\r\n\x1a\n rest"
_CITIES = [{"id": 1, "city": "Paris"}, {"id": 2, "city": "London"}]


def _requests(table: Any, prompt: Any = "Where is {city}?", **options: Any) -> jsonl.TableRequests:
    return jsonl.requests(table, prompt=prompt, model=_MODEL, **options)


def _problems(table: Any, prompt: Any = "{city}", **options: Any) -> tuple[str, ...]:
    with pytest.raises(ValidationError) as caught:
        list(_requests(table, prompt, **options))
    return tuple(caught.value.problems)


def _refusal(table: Any, prompt: Any = "{city}", **options: Any) -> str:
    with pytest.raises((UsageError, ValidationError)) as caught:
        list(_requests(table, prompt, **options))
    return str(caught.value)


# --- requests -----------------------------------------------------------------------------------------------------


def test_each_row_becomes_a_request() -> None:
    """The prompt is the message of the user, and parameters are those of the endpoint."""
    paris, london = _requests(_CITIES, max_tokens=5)
    messages = [{"role": "user", "content": "Where is Paris?"}]
    assert paris == BatchRequest("1", {"model": _MODEL, "messages": messages, "max_tokens": 5})
    assert (london.custom_id, london.body["messages"][0]["content"]) == ("2", "Where is London?")


def test_the_system_message_comes_first_and_is_no_template() -> None:
    """It often has JSON as an example, and is the same for each row."""
    (request,) = _requests(_CITIES[:1], system='Answer as {"city": "…"}.')
    assert request.body["messages"] == [
        {"role": "system", "content": 'Answer as {"city": "…"}.'},
        {"role": "user", "content": "Where is Paris?"},
    ]


def test_a_function_makes_the_messages_of_a_row() -> None:
    """It gets all columns; a system message still comes first."""

    def prompt(row: Mapping[str, Any]) -> list[dict[str, object]]:
        return [{"role": "user", "content": f"{row['id']}: {row['city']}"}]

    first, _ = _requests(_CITIES, prompt, system="Be brief.")
    assert first.body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1: Paris"},
    ]


def test_the_error_of_such_a_function_names_the_row() -> None:
    """It is the caller's own, with a note."""
    with pytest.raises(KeyError) as caught:
        list(_requests(_CITIES, lambda row: [row["town"]]))
    assert caught.value.__notes__ == ["in the prompt of row 1 of the table"]


def test_requests_of_a_table_can_be_iterated_again() -> None:
    """Those of an iterator cannot, and say so: a second reading would silently begin in the middle."""
    requests = _requests(_CITIES)
    assert list(requests) == list(requests)
    once = _requests(iter(_CITIES))
    assert next(iter(once)).custom_id == "1"
    with pytest.raises(UsageError, match="can be read only once, and was"):
        list(once)


def test_requests_of_a_table_serve_wherever_requests_do(tmp_path: Path) -> None:
    """They are written and checked like others."""
    requests = _requests(_CITIES)
    assert jsonl.write(requests, tmp_path / "requests.jsonl") == 2
    assert jsonl.validate(requests).ok
    assert list(jsonl.read(tmp_path / "requests.jsonl")) == list(requests)


# --- ids and values -----------------------------------------------------------------------------------------------


def test_an_id_is_text_or_an_integer() -> None:
    """An integer becomes text, of any column."""
    rows = [{"key": 7, "city": "a"}, {"key": "x-8", "city": "b"}, {"key": 10**20, "city": "c"}]
    assert [request.custom_id for request in _requests(rows, custom_id="key")] == [
        "7",
        "x-8",
        "100000000000000000000",
    ]


class NAType:
    """A missing value, as pandas has it, which is neither true nor false."""

    def __eq__(self, other: object) -> NAType:  # type: ignore[override]
        return self

    def __ne__(self, other: object) -> NAType:  # type: ignore[override]
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


@pytest.mark.parametrize(
    ("custom_id", "problem"),
    [
        (None, "the value is null"),
        (NAType(), "the value is null"),
        (float("nan"), "the value is null"),
        ("", "the id is empty"),
        (1.0, "the id 1.0 is of type float: an id is text or an integer"),
        (True, "the id True is of type bool: an id is text or an integer"),
        (["a"], "the id ['a'] is of type list: an id is text or an integer"),
    ],
)
def test_other_ids_are_refused(custom_id: Any, problem: str) -> None:
    """With the row, from 1, and the column."""
    assert _problems([_CITIES[0], {"id": custom_id, "city": "b"}]) == (f"row 2, column 'id': {problem}",)


def test_an_id_that_occurs_twice_is_refused() -> None:
    """With both rows; an integer and its text are the same id."""
    rows = [{"id": custom_id, "city": "a"} for custom_id in (1, 2, "1", 3, 2, 1)]
    assert _problems(rows) == (
        "row 3, column 'id': the id must be unique, and row 1 has it too",
        "row 5, column 'id': the id must be unique, and row 2 has it too",
        "row 6, column 'id': the id must be unique, and row 1 has it too",
    )


def test_all_problems_are_found_at_once() -> None:
    """The error begins with the first, and nothing is yielded after it; a thousand are enough."""
    rows: list[dict[str, Any]] = [{"id": 1, "city": "a"}, {"id": 2, "city": None}, {"id": 1, "city": "c"}, {"id": 4}]
    given: Iterator[BatchRequest] = iter(_requests(rows, "{city}"))
    assert next(given).custom_id == "1"
    with pytest.raises(ValidationError) as caught:
        next(given)
    assert str(caught.value) == "the table: row 2, column 'city': the value is null; 3 problems in all"
    assert caught.value.problems == (
        "row 2, column 'city': the value is null",
        "row 4, column 'city': the value is missing",
        "row 3, column 'id': the id must be unique, and row 1 has it too",
    )
    assert len(_problems([{"id": None, "city": "a"}] * 2000)) == 1000


def test_text_that_is_not_utf_8_is_refused_where_it_is_used(tmp_path: Path) -> None:
    """A column that is not used may be in any encoding."""
    path = tmp_path / "cities.csv"
    path.write_bytes("id,city,note\n1,Paris,é\n2,Genève,\n".encode("latin-1"))
    assert _refusal(path) == (
        f"{path}: row 2, column 'city': the text is not UTF-8: save the table as UTF-8, for example with iconv"
    )


# --- arguments ----------------------------------------------------------------------------------------------------


_FUNCTION = "the table: row 1: the prompt returned {}; it must return a list of messages; 2 problems in all"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"prompt": "hello"},
            "the prompt names no column, so all requests would be equal: write the name of a column",
        ),
        (
            {"prompt": "{{city}}"},
            "the prompt names no column, so all requests would be equal: write the name of a column in single braces",
        ),
        ({"prompt": "{town}"}, "the table has no column 'town'; its columns are 'id', 'city'"),
        ({"prompt": 5}, "prompt is a template, or a function from a row to its messages, not 5"),
        ({"prompt": lambda row: "hello"}, _FUNCTION.format("'hello'")),
        ({"prompt": lambda row: []}, _FUNCTION.format("[]")),
        ({"prompt": lambda row: ["hello"]}, _FUNCTION.format("['hello']")),
        ({"prompt": list, "images": "city"}, "images are for a prompt that is a template; a function puts them into"),
        ({"custom_id": "key"}, "the table has no column 'key'; its columns are 'id', 'city'"),
        ({"custom_id": 5}, "custom_id is the name of a column, not 5"),
        ({"image_directory": "."}, "image_directory is for images: name their column with images"),
        ({"images": ""}, "images is the name of a column, not ''"),
        ({"system": ""}, "system is the text of a message, not ''"),
        ({"messages": []}, "messages are made of the prompt; pass a function as the prompt to make others"),
        ({"stream": True}, "invalid request: body.stream is true, and a batch cannot stream: leave it out"),
        ({"model": ""}, "invalid request: body.model is empty"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(options: dict[str, Any], message: str) -> None:
    """With what to do."""
    with pytest.raises((UsageError, ValidationError)) as caught:
        list(jsonl.requests(_CITIES, **{"prompt": "{city}", "model": _MODEL, **options}))
    assert str(caught.value).startswith(message)


# --- schemas ------------------------------------------------------------------------------------------------------


@dataclass
class City:
    """What an answer is to be."""

    river: str


def test_a_schema_is_sent_with_each_request() -> None:
    """As the parameter ``response_format``, and in the system message unless that is declined."""
    expected = jsonl.chat_request(
        "1",
        model=_MODEL,
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is Paris?"}],
        schema=City,
    )
    first, _ = _requests(_CITIES, system="Be brief.", schema=City)
    assert first == expected
    first, _ = _requests(_CITIES, lambda row: expected.body["messages"][:1], schema=City, schema_in_prompt=False)
    assert first.body["messages"] == expected.body["messages"][:1]
    assert first.body["response_format"] == expected.body["response_format"]


def test_a_schema_in_other_words_is_the_same() -> None:
    """A new version of a library may word the schema of a class differently; another schema is another."""

    class Reworded:
        """An adapter whose schema has a title more."""

        def __init__(self, **more: object) -> None:
            self.schema = {**json.loads(before["schema"]), **more}

        def json_schema(self) -> dict[str, Any]:
            return self.schema

        def validate_json(self, data: str | bytes, /) -> object:
            raise NotImplementedError

    before = _requests(_CITIES, schema=City).fingerprint
    assert _requests(_CITIES, schema=Reworded(title="Other")).changed_since(before) == []
    assert _requests(_CITIES, schema=Reworded(required=[])).changed_since(before) == ["schema"]
    assert _requests(_CITIES).changed_since(before) == ["schema"]
    assert _requests(_CITIES, schema=City, schema_in_prompt=False).changed_since(before) == ["schema_in_prompt"]


# --- images -------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A directory with images, and what is not one, and files beside it."""
    directory = tmp_path / "pictures"
    (directory / "more").mkdir(parents=True)
    (directory / "a.png").write_bytes(_PNG)
    (directory / "more" / "b").write_bytes(b"\xff\xd8\xff rest")
    (directory / "c.bmp").write_bytes(b"BM rest")
    (directory / "d.webp").write_bytes(b"RIFF1234WEBP rest")
    (directory / "notes.txt").write_text("text")
    (tmp_path / "secret.png").write_bytes(_PNG)
    (directory / "link.png").symlink_to(directory / "a.png")
    (directory / "out.png").symlink_to(tmp_path / "secret.png")
    (directory / "elsewhere").symlink_to(tmp_path)
    return directory


def _content(image: Any, directory: Path | None = None) -> list[Any]:
    (request,) = _requests([{"id": 1, "image": image}], "What is it?", images="image", image_directory=directory)
    (message,) = request.body["messages"]
    text, *images = message["content"]
    assert text == {"type": "text", "text": "What is it?"}
    assert {image["type"] for image in images} <= {"image_url"}
    return [image["image_url"]["url"] for image in images]


def test_urls_of_images_are_sent_as_they_are() -> None:
    """A cell has one or a list of them; the prompt of images need not name a column."""
    urls = ["https://example.com/a.png", "HTTP://example.com/b", "data:image/png;base64,AA=="]
    assert _content(urls) == urls
    assert _content(urls[0]) == urls[:1]
    assert _content([]) == []


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "image/png"),
        ("more/b", "image/jpeg"),
        ("c.bmp", "image/bmp"),
        ("d.webp", "image/webp"),
        ("link.png", "image/png"),
        ("more/../a.png", "image/png"),
    ],
)
def test_local_images_become_data_urls(pictures: Path, name: str, kind: str) -> None:
    """The first bytes decide the media type, otherwise the name."""
    content = base64.b64encode((pictures / name).read_bytes()).decode()
    assert _content(name, pictures) == [f"data:{kind};base64,{content}"]
    assert _content(str(pictures / name), pictures) == [f"data:{kind};base64,{content}"]


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "out.png", "elsewhere/secret.png", "/etc/hostname", ".", "more/../../secret.png"],
)
def test_an_image_outside_of_the_directory_is_refused(pictures: Path, name: str) -> None:
    """Also behind a link: a table from elsewhere must not send other files of this machine."""
    (problem,) = _problems([{"id": 1, "i": name}], "?", images="i", image_directory=pictures)
    assert problem == (
        f"row 1, column 'i': the image {name!r} cannot be sent: it is not inside image_directory, "
        f"{pictures.resolve()}"
    )


@pytest.mark.parametrize(
    ("image", "problem"),
    [
        (None, "the value is null"),
        (5, "5 is not an image: write a URL, the path of a file, or a list of these"),
        ([None], "None is not an image: write a URL, or the path of a file"),
        ("", "'' is not an image: write a URL, or the path of a file"),
        ("absent.png", "the image 'absent.png' cannot be sent: there is no such file in {directory}"),
        ("more", "the image 'more' cannot be sent: there is no such file in {directory}"),
        ("notes.txt", "the image 'notes.txt' cannot be sent: it is not an image"),
        ("a\0", "the image 'a\\x00' cannot be sent: it cannot be read: embedded null byte"),
    ],
)
def test_what_is_no_image_is_refused(pictures: Path, image: Any, problem: str) -> None:
    """With the row and the column."""
    assert _problems([{"id": 1, "i": image}], "?", images="i", image_directory=pictures) == (
        f"row 1, column 'i': {problem.format(directory=pictures.resolve())}",
    )


def test_an_image_that_no_request_can_hold_is_not_read(pictures: Path) -> None:
    """A request has at most 10 MB, and base64 makes four bytes of three."""
    with (pictures / "a.png").open("r+b") as file:
        file.truncate(7_500_001)
    assert _problems([{"id": 1, "i": "a.png"}], "?", images="i", image_directory=pictures) == (
        "row 1, column 'i': the image 'a.png' cannot be sent: it has 7 500 001 bytes, more than 7 500 000",
    )


def test_local_images_need_a_directory(tmp_path: Path) -> None:
    """Without one, no file of this machine is sent."""
    (problem,) = _problems([{"id": 1, "i": "a.png"}], "?", images="i")
    assert problem == (
        "row 1, column 'i': the image 'a.png' cannot be sent: local images need image_directory, and only those "
        "inside of it are sent"
    )
    with pytest.raises(UsageError, match="image_directory is not a directory"):
        _requests(_CITIES, images="i", image_directory=tmp_path / "absent")


# --- fingerprints -------------------------------------------------------------------------------------------------


def _changed(*, table: Any = _CITIES, **options: Any) -> set[str]:
    before: dict[str, str] = dict(_requests(_CITIES, max_tokens=5, stop=["a"]).fingerprint)
    now = dict(_requests(table, **{"max_tokens": 5, "stop": ["a"], **options}).fingerprint)
    return {name for name in before | now if before.get(name) != now.get(name)}


def test_a_fingerprint_names_what_has_changed(tmp_path: Path) -> None:
    """Equal settings and rows have equal fingerprints, whatever kind of table the rows come from."""
    assert _changed() == set()
    assert _changed(table=[{"city": "Paris", "id": 1, "more": 0}, {"id": "2", "city": "London"}]) == set()
    assert _changed(table=_CITIES[::-1]) == {"table"}
    assert _changed(table=[*_CITIES, {"id": 3, "city": "Rome"}]) == {"table"}
    assert _changed(prompt="What is {city}?") == {"prompt", "table"}
    assert _changed(max_tokens=6) == {"max_tokens"}
    assert _changed(system="Be brief.") == {"system"}
    assert _changed(top_p=0.5) == {"top_p"}
    path = tmp_path / "cities.csv"
    path.write_text("id,city\n1,Paris\n2,London\n")
    assert _changed(table=path) == set()


def test_a_changed_function_shows_in_the_rows() -> None:
    """Functions are compared by what they return."""
    say = [_requests(_CITIES, lambda row, text=text: [{"content": text}]).fingerprint for text in ("a", "a", "b")]
    assert say[0] == say[1]
    assert {name for name in say[0] if say[0][name] != say[2][name]} == {"table"}


def test_a_table_that_can_be_read_only_once_is_not_read_for_its_fingerprint() -> None:
    """Its rows are part of it when the requests were iterated to their end."""
    requests = _requests(iter(_CITIES))
    assert "table" not in requests.fingerprint
    list(requests)
    assert requests.fingerprint == _requests(_CITIES).fingerprint


def test_the_repr_names_model_and_table() -> None:
    """A notebook shows it, and the rows may be many."""
    requests = jsonl.requests([{"id": 1, "city": "Paris"}], prompt="{city}", model="m")
    assert repr(requests) == "<TableRequests: a request to m for each row of the table>"


def test_a_frame_in_place_of_requests_is_refused() -> None:
    """Iterated, a frame gives columns, or their names; the error says what makes requests of its rows."""

    class Frame(list[str]):
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            raise AssertionError

    with pytest.raises(UsageError, match=r"a frame is a table: jsonl\.requests makes a request of each of its rows"):
        jsonl.validate(cast("Any", Frame(["id", "city"])))
