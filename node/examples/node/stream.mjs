// An answer, shown as it is made.

import OpenAI from 'openai';

const client = new OpenAI({ baseURL: `${process.env.KLATCH_URL}/v1`, apiKey: process.env.KLATCH_TOKEN });
const model = process.env.KLATCH_MODEL ?? 'eliza';

const stream = await client.responses.create({ model, input: 'I had a strange dream about my computer.', stream: true });
let response;
for await (const event of stream) {
  if (event.response) response = event.response;
  if (event.type === 'response.created') console.log(response.id, 'has begun');
  if (event.type === 'response.output_text.delta') process.stdout.write(event.delta);
}
console.log(`\nit is ${response.status}`);

// What was streamed is kept, and can be had again, now or tomorrow.
const kept = await client.responses.retrieve(response.id);
console.log('kept:', kept.output_text);
