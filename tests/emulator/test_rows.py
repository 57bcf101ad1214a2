"""The results of a job's rows."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from together_batches.emulator import Answer, Failure, Missing
from together_batches.emulator._json_answers import json_answer
from together_batches.emulator._rows import CompletedRows, RowBehaviour, first_model, input_error, lines_of

CHAT = "/v1/chat/completions"
AUDIO = "/v1/audio/transcriptions"


def chat(custom_id: str, content: str = "Name a river.", **more: object) -> bytes:
    body = {"model": "some/model", "messages": [{"role": "user", "content": content}], **more}
    return msgspec.json.encode({"custom_id": custom_id, "body": body})


def run(
    lines: list[bytes], answering: RowBehaviour | None = None, *, job: str = "j", share: float = 1, to: str = CHAT
) -> CompletedRows:
    return CompletedRows(lines, answering or RowBehaviour(), job_id=job, endpoint=to, created=7, share=share)


def rows(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines()]


def message_for(line: bytes, endpoint: str = CHAT) -> str:
    """Return the message of the error file for this one row."""
    (row,) = rows(run([line], to=endpoint).errors())
    return row["error"]["message"]


def test_an_output_row_is_shaped_like_the_services() -> None:
    """An output row has the shape of the service's, with the undocumented extra fields."""
    (row,) = rows(run([chat("a")]).output())
    assert list(row) == ["id", "custom_id", "response"]
    assert row["id"].startswith("br_")
    assert (row["custom_id"], row["response"]["status_code"]) == ("a", 200)
    body = row["response"]["body"]
    assert (body["object"], body["model"], body["prompt"]) == ("chat.completion", "some/model", [])
    choice = body["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("stop", "You said: Name a river.")
    assert set(choice["message"]) == {"role", "content", "reasoning", "tool_calls"}
    usage = body["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_an_answer_may_be_cut_by_its_limit() -> None:
    """An answer that is cut by its token limit is a success, even if it is empty."""
    for limit, content in ((2, "You said:"), (0, "")):
        (row,) = rows(run([chat("a", max_tokens=limit)]).output())
        choice = row["response"]["body"]["choices"][0]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("length", content)


def test_audio_is_answered_with_text() -> None:
    """An audio row with FILE and a public address is answered with text."""
    line = msgspec.json.encode(
        {"custom_id": "a", "method": "FILE", "body": {"model": "m", "file": "https://x.example/a.wav"}}
    )
    (row,) = rows(run([line], to=AUDIO).output())
    assert row["response"]["body"]["text"] == "What is heard in https://x.example/a.wav."
    assert {"language", "duration"} < set(row["response"]["body"])


def test_an_error_row_has_a_code_that_is_a_word() -> None:
    """An error row has a word as its code, and no response."""
    (row,) = rows(run([chat("a")], RowBehaviour(fail_rows=1)).errors())
    assert row["error"] == {"code": "batch_client_error", "message": "Internal Server Error"}
    assert list(row) == ["id", "custom_id", "error"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (chat("a", model="unknown/model"), "Unable to access model unknown/model. It does not exist."),
        (chat("a", model=None), "missing 'model' field in body or not a string"),
        (chat("a", stop=["1", "2", "3", "4", "5"]), "Maximum four stop sequences allowed"),
        (b'{"body":{"model":"m"}}', "custom_id is required"),
        (b'{"custom_id":"a"}', "missing 'model' field in body or not a string"),
        (b"not json", "Invalid JSON format"),
    ],
)
def test_some_rows_fail_by_what_they_ask(line: bytes, message: str) -> None:
    """Some rows fail by their content, one by one, without effect on the others."""
    assert message == message_for(line)


def test_audio_rows_fail_without_a_method_and_a_public_address() -> None:
    """Audio rows fail without a method and a public address, as the tutorial warns."""
    body = {"model": "m", "file": "file:///etc/passwd"}
    assert "content type" in message_for(msgspec.json.encode({"custom_id": "a", "body": body}), AUDIO)
    line = msgspec.json.encode({"custom_id": "a", "method": "FILE", "body": body})
    assert message_for(line, AUDIO) == "file must be a public URL"


def test_the_order_is_none_and_always_the_same() -> None:
    """The order is neither that of the input nor its reverse, is stable, and differs between jobs."""
    lines = [chat(str(number)) for number in range(50)]
    ids = [row["custom_id"] for row in rows(run(lines).output())]
    assert sorted(ids, key=int) == [str(number) for number in range(50)]
    assert ids not in (sorted(ids, key=int), sorted(ids, key=int, reverse=True))
    assert run(lines).output() == run(lines).output() != run(lines, job="k").output()


def test_an_answer_depends_on_its_row_alone() -> None:
    """An answer depends on its row alone, not on its job or on other rows."""
    line = chat("a")
    alone = rows(run([line]).output())[0]["response"]
    others = {row["custom_id"]: row["response"] for row in rows(run([chat("b"), line], job="k").output())}
    assert alone == others["a"]


@given(st.integers(0, 40), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.integers(0, 9))
def test_every_row_that_was_done_is_in_one_bucket(
    total: int, fail: float, missing: float, share: float, seed: int
) -> None:
    """Every completed row is in the output, the errors, or neither; the share limits the number of rows."""
    lines = [chat(str(number)) for number in range(total)]
    ran = run(lines, RowBehaviour(fail_rows=fail, missing_rows=missing, seed=seed), share=share)
    output = [row["custom_id"] for row in rows(ran.output())]
    errors = [row["custom_id"] for row in rows(ran.errors())]
    assert len(set(output + errors)) == len(output + errors) <= int(total * share + 1e-9)
    assert ran.succeeded_and_failed() == (bool(output), bool(errors))


def test_shares_are_about_kept_and_a_row_sent_again_has_another_chance() -> None:
    """Shares are approximate and drawn by job and place, not by id: a row sent again has another chance."""
    lines = [chat(str(number)) for number in range(1000)]
    answering = RowBehaviour(fail_rows=0.2, missing_rows=0.1)
    ran = run(lines, answering)
    failed = {row["custom_id"] for row in rows(ran.errors())}
    assert 150 < len(failed) < 250
    assert 650 < len(rows(ran.output())) < 750
    assert failed != {row["custom_id"] for row in rows(run(lines, answering, job="k").errors())}
    for shares in ({"fail_rows": 1.1}, {"missing_rows": -0.1}):
        with pytest.raises(ValueError, match="from 0 to 1"):
            RowBehaviour(**shares)


def test_the_caller_has_the_first_word() -> None:
    """The caller's function decides the outcome of a row; None means the usual one."""
    fates: dict[object, Answer | Failure | Missing] = {
        "text": Answer("Elbe"),
        "body": Answer(body={"odd": True}, status_code=201),
        "fails": Failure("no", code="timeout"),
        "lost": Missing(),
    }
    answering = RowBehaviour(answer=lambda row: fates.get(row["custom_id"]), fail_rows=1)
    ran = run([chat(str(name)) for name in (*fates, "usual")], answering)
    output = {row["custom_id"]: row["response"] for row in rows(ran.output())}
    errors = {row["custom_id"]: row["error"] for row in rows(ran.errors())}
    assert output["text"]["body"]["choices"][0]["message"]["content"] == "Elbe"
    assert output["body"] == {"status_code": 201, "body": {"odd": True}}
    assert errors["fails"] == {"code": "timeout", "message": "no"}
    assert (set(output), set(errors)) == ({"text", "body"}, {"fails", "usual"})


def test_odd_bodies_are_answered_too() -> None:
    """Odd bodies are answered, because the emulator validates no more than necessary."""
    odd: list[dict[str, object]] = [
        {"messages": []},
        {"messages": "x"},
        {"messages": ["x"]},
        {"messages": [{"content": []}]},
    ]
    lines = [msgspec.json.encode({"custom_id": "a", "body": {"model": "m", **body}}) for body in odd]
    contents = [row["response"]["body"]["choices"][0]["message"]["content"] for row in rows(run(lines).output())]
    assert contents == ["You said: nothing"] * 4


def test_validation_names_the_line_or_the_model() -> None:
    """Validation fails the whole job, and the message names the line or the model."""
    bad_line = "Failed to calculate tokens: input format error: Line 2 (within chunk): Invalid JSON format - "
    assert str(input_error([chat("a"), b"{"])).startswith(bad_line)
    assert "non-serverless model dedicated/x" in str(input_error([chat("a", model="dedicated/x")]))
    assert input_error([chat("a"), chat("b")]) is None


def test_lines_end_at_newline_only_and_the_first_names_the_model() -> None:
    """Lines end only at a newline, not at U+2028 or a carriage return, and the first one names the model."""
    assert lines_of("a\u2028b\r\nc\n".encode()) == ["a\u2028b\r".encode(), b"c"]
    assert first_model([chat("a", model="x"), chat("b", model="y")]) == "x"
    assert first_model([]) is None


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (
            {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "kind": {"enum": ["river", "lake"]},
                    "length": {"type": "number", "minimum": 7},
                    "deep": {"type": "boolean"},
                    "ports": {"type": "array", "items": {"$ref": "#/$defs/port"}, "minItems": 2},
                    "spare": {"type": "string"},
                },
                "required": ["city", "kind", "length", "deep", "ports"],
                "$defs": {"port": {"anyOf": [{"const": "quay"}, {"type": "null"}]}},
            },
            {"city": "Name a river.", "kind": "river", "length": 7, "deep": True, "ports": ["quay", "quay"]},
        ),
        ({"type": ["string", "null"], "format": "date"}, "2026-09-14"),
        ({"type": "string", "minLength": 15, "maxLength": 14}, "Name a river.."),
        ({"type": "integer", "exclusiveMinimum": 3}, 4),
        ({"allOf": [{"properties": {"a": {"type": "null"}}, "required": ["a"]}, {}]}, {"a": None}),
        ({"type": "array", "prefixItems": [{"examples": ["x"]}]}, ["x"]),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": True}}, None),
    ],
)
def test_an_answer_by_a_json_schema(schema: object, expected: object) -> None:
    """A request with a JSON schema is answered with JSON that fits it."""
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    (row,) = rows(run([chat("a", response_format=asked)]).output())
    (choice,) = row["response"]["body"]["choices"]
    assert (json.loads(choice["message"]["content"]), choice["finish_reason"]) == (expected, "stop")


def test_a_json_schema_without_end() -> None:
    """A schema that requires itself is answered all the same; the answer is cut off like any other."""
    schema = {"properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    (row,) = rows(run([chat("a", response_format=asked, max_tokens=2)]).output())
    (choice,) = row["response"]["body"]["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ('{"a": {"a":', "length")


@pytest.mark.parametrize("response_format", [None, {}, {"type": "text"}, {"type": "json_schema"}, 7])
def test_an_answer_without_a_json_schema(response_format: object) -> None:
    """Other formats are answered as usual."""
    assert json_answer(response_format, "words") is None
