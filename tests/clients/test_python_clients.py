"""Clients and frameworks in Python. Each program prints `ok` when all that it does has worked."""

from __future__ import annotations

import pytest

from tests.clients.conftest import python_program
from tests.integration.servers import Server


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("langchain", ("langchain-openai", "langchain-core")),
        ("litellm", ("litellm",)),
        ("instructor", ("instructor",)),
        ("pydantic_ai", ("pydantic-ai-slim[openai]",)),
        ("openai_agents", ("openai-agents",)),
        ("autogen", ("autogen-agentchat", "autogen-ext[openai]")),
        ("smolagents", ("smolagents[openai]",)),
        ("llama_index", ("llama-index-llms-openai-like",)),
    ],
)
def test_a_client_works(long_server: Server, name: str, packages: tuple[str, ...]) -> None:
    assert python_program(name, long_server, *packages).splitlines()[-1] == "ok"
