import sys

sys.path.pop(0)  # this file has the library's name
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

url, name = sys.argv[1:]
llm = OpenAILike(model=name, api_base=f"{url}/v1", api_key="unused", is_chat_model=True, max_tokens=40)
assert llm.chat([ChatMessage(role="user", content="hello")]).message.content
assert "".join(str(chunk.delta or "") for chunk in llm.stream_chat([ChatMessage(role="user", content="hello")]))
print("ok")
