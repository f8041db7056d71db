import sys

sys.path.pop(0)  # this file has the library's name
import instructor
import openai
from pydantic import BaseModel


class Place(BaseModel, extra="forbid"):
    calm: bool


url, model = sys.argv[1:]
for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
    client = instructor.from_openai(openai.OpenAI(base_url=f"{url}/v1", api_key="unused"), mode=mode)
    messages = [{"role": "user", "content": "Is it calm?"}]
    place = client.chat.completions.create(model=model, response_model=Place, messages=messages, max_tokens=80)
    assert isinstance(place, Place)
print("ok")
