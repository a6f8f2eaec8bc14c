// A function of yours that the model asks for: its call, your answer, and what the model makes of it. Needs a model that
// calls functions.

import OpenAI from 'openai';

const client = new OpenAI({ baseURL: `${process.env.KLATCH_URL}/v1`, apiKey: process.env.KLATCH_TOKEN });
const model = process.env.KLATCH_MODEL ?? 'my-bot';

const tools = [
  {
    type: 'function',
    name: 'get_weather',
    description: 'The weather in a city, now.',
    parameters: {
      type: 'object',
      properties: { city: { type: 'string' } },
      required: ['city'],
      additionalProperties: false,
    },
    strict: true,
  },
];

const getWeather = ({ city }) => ({ city, degrees: 21, sky: 'clear' });

let response = await client.responses.create({ model, input: 'What is the weather in Paris?', tools });
// A model may need several calls, one after the other; but not for ever.
for (let round = 0; round < 5; round += 1) {
  const calls = response.output.filter((item) => item.type === 'function_call');
  if (calls.length === 0) break;
  const input = calls.map((call) => {
    const output = JSON.stringify(getWeather(JSON.parse(call.arguments)));
    console.log(`${call.name}(${call.arguments}) is ${output}`);
    return { type: 'function_call_output', call_id: call.call_id, output };
  });
  response = await client.responses.create({ model, previous_response_id: response.id, input, tools });
}
console.log(response.output_text);
