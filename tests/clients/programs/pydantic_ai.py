import sys

sys.path.pop(0)  # this file has the library's name
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class Place(BaseModel, extra="forbid"):
    calm: bool


url, name = sys.argv[1:]
model = OpenAIChatModel(name, provider=OpenAIProvider(base_url=f"{url}/v1", api_key="unused"))
assert Agent(model).run_sync("hello").output
assert isinstance(Agent(model, output_type=Place).run_sync("Is it calm?").output, Place)
print("ok")
