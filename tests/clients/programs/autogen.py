import asyncio
import sys

sys.path.pop(0)  # this file has the library's name
from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient

url, name = sys.argv[1:]
info = {
    "vision": False,
    "function_calling": True,
    "json_output": True,
    "family": "unknown",
    "structured_output": True,
}
client = OpenAIChatCompletionClient(
    model=name, base_url=f"{url}/v1", api_key="unused", model_info=info, max_tokens=60
)


async def main() -> None:
    result = await AssistantAgent("a", model_client=client).run(task="hello")
    assert result.messages[-1].content


asyncio.run(main())
print("ok")
