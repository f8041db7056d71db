"""Stream a completion from a running `faasmoe serve` with the openai client.

pip install openai
python examples/chat.py "Once upon a time"
"""

from __future__ import annotations

import sys

from openai import OpenAI


def main() -> None:
    prompt = " ".join(sys.argv[1:]) or "Once upon a time"
    client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="unused")
    model = client.models.list().data[0].id
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        max_completion_tokens=100,
        stream=True,
    )
    for chunk in stream:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    main()
