"""Agents of the command line: each is asked once, and says what the model has said."""

from __future__ import annotations

import json

from tests.clients.conftest import MODEL, npm, output
from tests.integration.servers import Server


def test_codex(long_server: Server) -> None:
    folder = npm("codex", "@openai/codex")
    settings = folder / "home" / ".codex"
    settings.mkdir(exist_ok=True)
    (settings / "config.toml").write_text(
        f'model = "{MODEL}"\nmodel_provider = "faasmoe"\n[model_providers.faasmoe]\nname = "faasmoe"\n'
        f'base_url = "{long_server.url}/v1"\nwire_api = "responses"\nrequest_max_retries = 0\nstream_max_retries = 0\n'
    )
    command = [str(folder / "node_modules" / ".bin" / "codex"), "exec", "--skip-git-repo-check", "hello"]
    assert output(command, folder / "project", {"HOME": str(folder / "home")}).strip()


def test_claude_code(long_server: Server) -> None:
    folder = npm("claude_code", "@anthropic-ai/claude-code")
    environment = {
        "HOME": str(folder / "home"),
        "ANTHROPIC_BASE_URL": long_server.url,
        "ANTHROPIC_AUTH_TOKEN": "unused",
        "ANTHROPIC_MODEL": MODEL,
        "ANTHROPIC_SMALL_FAST_MODEL": MODEL,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    command = [str(folder / "node_modules" / ".bin" / "claude"), "-p", "hello", "--output-format", "json"]
    told = json.loads(output(command, folder / "project", environment))
    assert (told["subtype"], told["is_error"], told["stop_reason"]) == ("success", False, "end_turn")
    assert told["result"]


def test_opencode(long_server: Server) -> None:
    folder = npm("opencode", "opencode-ai")
    options = {"baseURL": f"{long_server.url}/v1", "apiKey": "unused"}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "f",
        "options": options,
        "models": {MODEL: {"name": MODEL}},
    }
    (folder / "project" / "opencode.json").write_text(json.dumps({"provider": {"faasmoe": provider}}))
    command = [str(folder / "node_modules" / ".bin" / "opencode"), "run", "-m", f"faasmoe/{MODEL}", "hello"]
    assert output(command, folder / "project", {"HOME": str(folder / "home")}).strip()


def test_the_ai_sdk(long_server: Server) -> None:
    folder = npm("ai_sdk", "ai", "@ai-sdk/openai-compatible", "zod")
    program = folder / "ask.mjs"
    program.write_text(
        """
import { generateText, generateObject, streamText, tool } from 'ai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { z } from 'zod';
const [url, name] = process.argv.slice(2);
const model = createOpenAICompatible({ name: 'faasmoe', baseURL: url + '/v1', supportsStructuredOutputs: true })(name);
const { text } = await generateText({ model, prompt: 'hello', maxOutputTokens: 20 });
if (!text) throw new Error('no text');
const { object } = await generateObject({ model, prompt: 'where?', schema: z.object({ place: z.enum(['sea']) }) });
if (object.place !== 'sea') throw new Error('another object');
const weather = tool({ inputSchema: z.object({ place: z.enum(['sea']) }) });
const stream = streamText({ model, prompt: 'hello', tools: { weather }, toolChoice: 'required' });
const calls = await stream.toolCalls;
if (calls[0].toolName !== 'weather' || calls[0].input.place !== 'sea') throw new Error('another call');
console.log('ok');
"""
    )
    assert output(["node", str(program), long_server.url, MODEL], folder, {}).splitlines()[-1] == "ok"
