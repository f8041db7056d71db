import sys

from agents import Agent, ModelSettings, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from openai import AsyncOpenAI

url, name = sys.argv[1:]
set_tracing_disabled(True)
asked = []


@function_tool
def weather(calm: bool) -> str:
    """Tells the weather."""
    asked.append(calm)
    return "calm"


model = OpenAIResponsesModel(model=name, openai_client=AsyncOpenAI(base_url=f"{url}/v1", api_key="unused"))
agent = Agent(name="a", model=model, tools=[weather], model_settings=ModelSettings(tool_choice="required"))
assert Runner.run_sync(agent, "How is it?").final_output is not None
assert len(asked) >= 1
print("ok")
