import sys

sys.path.pop(0)  # this file has the library's name
from smolagents import ChatMessage, MessageRole, OpenAIServerModel

url, name = sys.argv[1:]
model = OpenAIServerModel(model_id=name, api_base=f"{url}/v1", api_key="unused", max_tokens=40)
asked = [ChatMessage(role=MessageRole.USER, content=[{"type": "text", "text": "hello"}])]
assert model.generate(asked, stop_sequences=["Observation:", "Calling tools:"]).content
print("ok")
