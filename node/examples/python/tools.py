"""A function of yours that the model asks for: its call, your answer, and what the model makes of it.

Needs a model that calls functions.
"""

import json
import os

from openai import OpenAI

client = OpenAI(base_url=os.environ["KLATCH_URL"] + "/v1", api_key=os.environ["KLATCH_TOKEN"])
model = os.environ.get("KLATCH_MODEL", "my-bot")

TOOLS = [
    {
        "type": "function",
        "name": "get_weather",
        "description": "The weather in a city, now.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
        "strict": True,
    }
]


def get_weather(city):
    return {"city": city, "degrees": 21, "sky": "clear"}


response = client.responses.create(model=model, input="What is the weather in Paris?", tools=TOOLS)
# A model may need several calls, one after the other; but not for ever.
for _ in range(5):
    calls = [item for item in response.output if item.type == "function_call"]
    if not calls:
        break
    results = []
    for call in calls:
        result = get_weather(**json.loads(call.arguments))
        print(f"{call.name}({call.arguments}) is {json.dumps(result)}")
        results.append({"type": "function_call_output", "call_id": call.call_id, "output": json.dumps(result)})
    response = client.responses.create(model=model, previous_response_id=response.id, input=results, tools=TOOLS)
print(response.output_text)
