import sys

sys.path.pop(0)  # this file has the library's name
import litellm

url, model = sys.argv[1:]
where = {"model": f"openai/{model}", "api_base": f"{url}/v1", "api_key": "unused", "max_tokens": 40}
messages = [{"role": "user", "content": "hello"}]
assert litellm.completion(messages=messages, **where).choices[0].message.content
chunks = litellm.completion(messages=messages, stream=True, **where)
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
named = {"type": "function", "function": {"name": "f"}}
answer = litellm.completion(messages=messages, tools=[tool], tool_choice=named, **where)
assert answer.choices[0].message.tool_calls[0].function.name == "f"
try:
    litellm.completion(messages=[{"role": "user", "content": "sea " * 200_000}], **where)
except litellm.ContextWindowExceededError:
    pass
else:
    raise SystemExit("a prompt that is too long was taken")
where["model"] = f"anthropic/{model}"
assert litellm.completion(messages=messages, **{**where, "api_base": url}).choices[0].message.content
print("ok")
