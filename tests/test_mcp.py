"""The MCP server, by the client library of the protocol's authors and by hostile lines."""

import asyncio
import base64
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from kontext.mcp import McpServer, Tools
from kontext.session import Store
from support.fake_editor import FakeEditor, tint
from support.serving import FAKE, noise, opened

COMMAND = ["-c", "from kontext.cli import main; main()", "mcp", "--editor", FAKE]


def test_the_official_client_edits_varies_and_reads_the_history(tmp_path):
    pytest.importorskip("mcp")
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    noise().save(tmp_path / "kid.png")
    steps = []

    async def told(progress, total, message):
        steps.append((progress, total))

    async def story():
        server = StdioServerParameters(
            command=sys.executable,
            args=[*COMMAND, "--data", str(tmp_path / "data")],
            env={"PYTHONPATH": os.pathsep.join(sys.path)},  # the client passes few variables on
        )
        async with stdio_client(server) as (read, write), ClientSession(read, write) as client:
            await client.initialize()
            assert [tool.name for tool in (await client.list_tools()).tools] == [
                "generate",
                "edit",
                "vary",
                "history",
            ]
            arguments = {"prompt": "a hat", "picture": str(tmp_path / "kid.png"), "seed": 5}
            arguments["save_to"] = str(tmp_path / "hat.png")
            edited = await client.call_tool("edit", arguments, progress_callback=told)
            facts = json.loads(edited.content[-1].text)
            picture = opened(base64.b64decode(edited.content[0].data))
            assert np.array_equal(np.asarray(picture), np.asarray(tint(noise(), "a hat", 5)[0]))
            assert facts["saved"] == [str(tmp_path / "hat.png")]
            twice = await client.call_tool("edit", arguments)
            assert "already exists" in twice.content[0].text
            arguments = {
                "session": facts["session"],
                "count": 2,
                "seed": 8,
                "save_to": str(tmp_path / "帽.webp"),
            }
            varied = await client.call_tool("vary", arguments)
            assert len(varied.content) == 3
            again = await client.call_tool("edit", {"prompt": "x", "session": facts["session"], "turn": 0})
            history = await client.call_tool("history", {"session": facts["session"]})
            wrong = await client.call_tool("edit", {"prompt": "x", "session": "nobody"})
            generated = await client.call_tool("generate", {"prompt": "a kid"})
            return again, json.loads(history.content[0].text), wrong, generated

    again, history, wrong, generated = asyncio.run(asyncio.wait_for(story(), 240))
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "hat.png")), np.asarray(tint(noise(), "a hat", 5)[0])
    )
    assert sorted(os.fsencode(path.name).decode() for path in tmp_path.glob("*.webp")) == [
        "帽-1.webp",
        "帽-2.webp",
    ]
    assert [turn["parent"] for turn in history["turns"]] == [None, 0, 0, 0, 0]
    assert [turn["seed"] for turn in history["turns"][1:4]] == [5, 8, 9]
    assert not getattr(again, "is_error", getattr(again, "isError", False)) and generated.content
    assert "session" in wrong.content[0].text and steps[-1] == (4, 4)


@pytest.mark.parametrize(
    "save_to, words",
    [
        ("{folder}/x.gif", "must end with"),
        ("{folder}/x", "must end with"),
        ("{folder}/nowhere/x.png", "does not exist"),
        ("{folder}/here.png", "already exists"),
        ("", "must be the path"),
        (3, "must be the path"),
        ("a\0.png", "must be the path"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_any_work(tmp_path, save_to, words):
    (tmp_path / "here.png").write_bytes(b"mine")
    given = save_to.format(folder=tmp_path) if isinstance(save_to, str) else save_to
    tools = Tools(Store(tmp_path / "data"), load=lambda: pytest.fail("the editor was loaded"))
    told = tools.call("generate", {"prompt": "a kid", "save_to": given}, None, threading.Event())
    assert told["isError"] and words in told["content"][0]["text"]
    assert (tmp_path / "here.png").read_bytes() == b"mine"


def test_the_tools_take_every_option_of_an_edit(tmp_path):
    noise().save(tmp_path / "kid.png")
    Image.new("L", noise().size, 255).save(tmp_path / "mask.png")
    tools = Tools(Store(tmp_path / "data"), load=FakeEditor)
    settings = {"steps": 3, "guidance": 4.5, "size": "match", "box": [1, 2, 20, 20], "lock": False}
    pictures = {"mask": str(tmp_path / "mask.png"), "references": [str(tmp_path / "kid.png")]}
    given = {
        "prompt": "a hat",
        "picture": str(tmp_path / "kid.png"),
        "regions": False,
        **settings,
        **pictures,
    }
    answer = tools.call("edit", given, None, threading.Event())
    assert "isError" not in answer, answer
    turn = tools.store.open(answer["structuredContent"]["session"]).current
    assert turn.settings == {"regions": False, **settings}
    assert set(turn.blobs) >= {"mask", "reference"}
    for wrong in ({"lock": "no"}, {"guidance": 31}, {"mask": "nowhere.png"}, {"references": [3]}):
        assert tools.call("edit", {**given, **wrong}, None, threading.Event())["isError"]


def test_an_id_in_use_is_refused_and_its_first_request_is_answered(tmp_path):
    sent = []
    server = McpServer(Tools(Store(tmp_path), load=lambda: None), sent.append)
    for number in (7, 7, "7", None):
        server._take(json.dumps({"jsonrpc": "2.0", "id": number, "method": "ping"}))
    assert [answer["error"]["code"] for answer in sent] == [-32600] and sent[0]["id"] == 7
    server.serve([])
    assert [answer["id"] for answer in sent[1:]] == [7, "7", None]
    assert all(answer["result"] == {} for answer in sent[1:])


def call(number, arguments):
    params = {"name": "edit", "arguments": arguments}
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})


def test_hostile_lines_are_answered_by_errors(tmp_path):
    lines = [
        "no json",
        "[]",
        '{"jsonrpc": "1.0", "id": 1, "method": "ping"}',
        '{"jsonrpc": "2.0", "id": 2, "method": "nothing"}',
        '{"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "rm"}}',
        '{"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": [1]}',
        call(5, {"prompt": "x", "evil": 1}),
        call(6, {"prompt": 3, "picture": "/etc/passwd"}),
        '{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": {}}}',
        "[" * 100_000,
        '{"jsonrpc": "2.0", "id": {"a": [1]}, "method": "ping"}',
    ]
    ended = subprocess.run(
        [sys.executable, *COMMAND, "--data", str(tmp_path)],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0 and "Traceback" not in ended.stdout
    answers = [json.loads(line) for line in ended.stdout.splitlines()]
    codes = {
        str(answer["id"]): answer["error"]["code"]
        for answer in answers
        if "error" in answer and answer["id"] is not None
    }
    assert codes == {"2": -32601, "3": -32602, "4": -32602}
    assert [answer["error"]["code"] for answer in answers if answer.get("id") is None] == [
        -32700,
        -32600,
        -32600,
        -32700,
    ]
    failed = {
        answer["id"]: answer["result"] for answer in answers if "result" in answer and answer["id"] in (5, 6)
    }
    assert all(result["isError"] for result in failed.values()) and "root:" not in ended.stdout
