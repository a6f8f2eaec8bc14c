// A stream that goes on where its connection broke: `starting_after`, with no hole and no repeat.
//
// The answer is made whether or not somebody reads it, and its events have numbers that never change.

import { randomUUID } from 'node:crypto';

import OpenAI from 'openai';

// The events of one turn, each once and in order, over as many connections as it takes.
async function* events(client, turn) {
  // Under its key the turn is made once, however often it is sent.
  const headers = { 'Idempotency-Key': randomUUID() };
  let id;
  let last = -1;
  for (let failures = 0; ; ) {
    try {
      const stream = id
        ? await client.responses.retrieve(id, { stream: true, starting_after: last })
        : await client.responses.create({ ...turn, stream: true }, { headers });
      for await (const event of stream) {
        if (event.type === 'response.created') id = event.response.id;
        last = event.sequence_number;
        failures = 0;
        yield event;
      }
      return;
    } catch (error) {
      // What the server refused has a status; a connection that broke has none.
      if (error.status !== undefined || ++failures > 10) throw error;
      process.stdout.write(` [the connection broke after event ${last}] `);
    }
  }
}

// For this example: the first two connections break, each in the middle of an event.
const cuts = [3000, 2000];

async function pullTheCable(url, init) {
  const answer = await fetch(url, init);
  if (cuts.length === 0) return answer;
  let left = cuts.shift();
  const breaking = new TransformStream({
    transform(piece, connection) {
      connection.enqueue(piece.subarray(0, left));
      left -= piece.length;
      if (left <= 0) connection.error(new TypeError('the cable was pulled'));
    },
  });
  return new Response(answer.body.pipeThrough(breaking), answer);
}

const client = new OpenAI({
  baseURL: `${process.env.KLATCH_URL}/v1`,
  apiKey: process.env.KLATCH_TOKEN,
  fetch: pullTheCable,
});
const model = process.env.KLATCH_MODEL ?? 'echo';
const numbersToThirty = Array.from({ length: 30 }, (_, n) => `${n + 1},`).join(' ');

const seen = [];
for await (const event of events(client, { model, input: `Count with me: ${numbersToThirty} done.` })) {
  seen.push(event);
  if (event.type === 'response.output_text.delta') process.stdout.write(event.delta);
}
console.log();

const whole = seen.every((event, n) => event.sequence_number === n);
console.log(`events 0 to ${seen.length - 1}:`, whole ? 'none is missing, none came twice' : 'WRONG');
const text = seen.map((event) => (event.type === 'response.output_text.delta' ? event.delta : '')).join('');
const { response } = seen.at(-1);
const kept = await client.responses.retrieve(response.id);
console.log('the text is', text === kept.output_text ? 'whole' : 'NOT WHOLE');
