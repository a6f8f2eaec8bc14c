// A turn in the background, looked at while it runs, and stopped. Needs a model that takes its time.

import OpenAI from 'openai';

const client = new OpenAI({ baseURL: `${process.env.KLATCH_URL}/v1`, apiKey: process.env.KLATCH_TOKEN });
const model = process.env.KLATCH_MODEL ?? 'slow';

const started = await client.responses.create({ model, input: 'Write me a very long story.', background: true });
console.log(started.id, 'is', started.status);

// Anybody who knows the id may read along. Leaving does not stop a turn; cancelling does.
let words = 0;
for await (const event of await client.responses.retrieve(started.id, { stream: true })) {
  if (event.type !== 'response.output_text.delta') continue;
  process.stdout.write(event.delta);
  words += 1;
  if (words === 3) break;
}
console.log(' … that is enough');

await client.responses.cancel(started.id);

// The stream ends when the turn does, so that nobody has to poll.
for await (const _ of await client.responses.retrieve(started.id, { stream: true }));
const stopped = await client.responses.retrieve(started.id);
console.log(stopped.id, 'is', stopped.status, '- it said:', stopped.output_text);
