"""The MCP server, by the client library of the protocol's authors and by hostile lines."""

import asyncio
import base64
import json
import subprocess
import sys

import numpy as np
import pytest
from fake_editor import tint
from serving import FAKE, noise, opened

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
            command=sys.executable, args=[*COMMAND, "--data", str(tmp_path / "data")]
        )
        async with stdio_client(server) as (read, write), ClientSession(read, write) as client:
            await client.initialize()
            assert [tool.name for tool in (await client.list_tools()).tools] == [
                "generate",
                "edit",
                "vary",
                "history",
            ]
            wish = {"prompt": "a hat", "picture": str(tmp_path / "kid.png"), "seed": 5}
            edited = await client.call_tool("edit", wish, progress_callback=told)
            facts = json.loads(edited.content[-1].text)
            picture = opened(base64.b64decode(edited.content[0].data))
            assert np.array_equal(np.asarray(picture), np.asarray(tint(noise(), "a hat", 5)[0]))
            varied = await client.call_tool("vary", {"session": facts["session"], "count": 2, "seed": 8})
            assert len(varied.content) == 3
            again = await client.call_tool("edit", {"prompt": "x", "session": facts["session"], "turn": 0})
            history = await client.call_tool("history", {"session": facts["session"]})
            wrong = await client.call_tool("edit", {"prompt": "x", "session": "nobody"})
            generated = await client.call_tool("generate", {"prompt": "a kid"})
            return again, json.loads(history.content[0].text), wrong, generated

    again, history, wrong, generated = asyncio.run(asyncio.wait_for(story(), 240))
    assert [turn["parent"] for turn in history["turns"]] == [None, 0, 0, 0, 0]
    assert [turn["seed"] for turn in history["turns"][1:4]] == [5, 8, 9]
    assert not getattr(again, "is_error", getattr(again, "isError", False)) and generated.content
    assert "session" in wrong.content[0].text and steps[-1] == (4, 4)


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
