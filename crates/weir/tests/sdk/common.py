"""Runs the scenarios of scenarios.json through an SDK. What is particular to one stands in its adapter:

    NAME                                   as in the tags of its calls
    ask(conversation, stream, ...)         the answer, as an `Answer`
    begin(conversation)                    a stream: an iterator over pieces of text, and what closes it
    explain(error)                         (what it means, retry-after)
    extras()                               what no other has

Arguments: URLs with commas between them, a model, and what is left out: an adapter, a scenario, or one with the other.

A conversation is a list of ("user", text), ("calls", answer) and ("results", [(call, text)])."""

import itertools
import json
import os
import sys
import traceback
from dataclasses import dataclass, field


@dataclass
class Answer:
    text: str = ""
    stop: str = ""
    # (id, name, arguments)
    calls: list = field(default_factory=list)
    usage: dict = field(default_factory=dict)
    # For the next request, as the SDK wants it.
    raw: object = None


def main(*adapters):
    with open(os.path.join(os.path.dirname(__file__), "scenarios.json"), encoding="utf-8") as file:
        data = json.load(file)
    urls, model, left_out = sys.argv[1].split(","), sys.argv[2], sys.argv[3:]
    failed = 0
    for url, make, scenario in itertools.product(urls, adapters, data["scenarios"]):
        name = f"{make.NAME} {scenario['name']}"
        if {make.NAME, scenario["name"], name} & set(left_out):
            continue
        adapter = make(url, scenario.get("key", "key"), scenario.get("model", model))
        try:
            perform(adapter, scenario, data["tools"])
        except Exception:
            failed += 1
            print(f"{name} at {url}:\n{traceback.format_exc(limit=-3)}", file=sys.stderr)
    sys.exit(1 if failed else 0)


def perform(adapter, scenario, tools):
    kind, expect = scenario.get("kind", "ask"), scenario.get("expect", {})
    tag = f"tag={adapter.NAME}-{scenario['name']}"
    first = ("user", f"{scenario.get('prompt', 'Hello.')} [sim {scenario.get('words', '')} {tag}]")
    options = {
        "stream": scenario.get("stream", False),
        "limit": scenario.get("limit"),
        "schema": scenario.get("schema"),
        "system": scenario.get("system"),
        "tools": tools if kind == "tools" else None,
    }
    if kind == "ask":
        check(adapter.ask([first], **options), expect)
    elif kind == "tools":
        answer = adapter.ask([first], **options)
        check(answer, expect)
        results = [(call, "It is cold.") for call in answer.calls]
        results[-1] = (answer.calls[-1], f"{expect['answer']} [sim echo {tag}]")
        answer = adapter.ask([first, ("calls", answer), ("results", results)], **options)
        assert expect["answer"] in answer.text, answer
        equal("stop", answer.stop, "end")
    elif kind == "error":
        try:
            answer = adapter.ask([first], **options)
        except Exception as error:
            meaning, retry_after = adapter.explain(error)
            if "error" in expect:
                equal("error", meaning, expect["error"])
            if "retry_after" in expect and adapter.TELLS_HEADERS:
                equal("retry-after", retry_after, expect["retry_after"])
            assert not isinstance(error, (AssertionError, AttributeError, KeyError, TypeError)), repr(error)
        else:
            raise AssertionError(f"no error but {answer}")
    elif kind == "cancel":
        pieces, close = adapter.begin([first])
        for _ in range(3):
            next(pieces)
        close()
    elif kind == "extras":
        adapter.extras()


def check(answer, expect):
    for what, value in expect.items():
        if what == "text":
            equal(what, answer.text, value)
        elif what == "stop":
            equal(what, answer.stop, value)
        elif what == "json":
            equal(what, json.loads(answer.text), value)
        elif what == "calls":
            equal(what, [[name, arguments] for _, name, arguments in answer.calls], value)
            equal("different ids", len({id for id, _, _ in answer.calls}), len(value))
        elif what == "usage":
            for name, number in value.items():
                equal(f"usage {name}", answer.usage.get(name), number)


def equal(what, found, expected):
    assert found == expected, f"{what}: {found!r}, expected {expected!r}"
