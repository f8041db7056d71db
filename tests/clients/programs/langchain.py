import sys

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Place(BaseModel, extra="forbid"):
    calm: bool


@tool
def weather(calm: bool) -> str:
    """Tells the weather."""
    return "calm"


url, model = sys.argv[1:]
chat = ChatOpenAI(base_url=f"{url}/v1", api_key="unused", model=model, max_tokens=300)
assert chat.invoke("hello").content
assert "".join(chunk.content for chunk in chat.stream("hello"))
assert isinstance(chat.with_structured_output(Place, method="json_schema").invoke("where?"), Place)
call = chat.bind_tools([weather], tool_choice="weather").invoke("how is it?").tool_calls[0]
assert (call["name"], type(call["args"]["calm"])) == ("weather", bool), call
print("ok")
