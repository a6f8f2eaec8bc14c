// A key for every request, so that a turn that the SDK sends again is made once.

import { randomUUID } from 'node:crypto';

import OpenAI from 'openai';

// For this example: the first answer to a turn is lost on its way, when all is done at the server.
let lost = 0;

async function loseTheAnswer(url, init) {
  const answer = await fetch(url, init);
  if (lost > 0 || !new URL(url).pathname.endsWith('/responses')) return answer;
  lost += 1;
  await answer.arrayBuffer();
  throw new TypeError('the answer was lost');
}

const options = {
  baseURL: `${process.env.KLATCH_URL}/v1`,
  apiKey: process.env.KLATCH_TOKEN,
  fetch: loseTheAnswer,
};
const model = process.env.KLATCH_MODEL ?? 'eliza';

async function turnsAfterALostAnswer(client) {
  lost = 0;
  const conversation = await client.conversations.create();
  // The SDK does not see the answer, waits a little, and sends the turn again.
  await client.responses.create({ model, conversation: conversation.id, input: 'Order one pizza.' });
  const { data } = await client.conversations.items.list(conversation.id);
  return data.length / 2;
}

const client = new OpenAI(options);
console.log('without keys, turns made:', await turnsAfterALostAnswer(client));

// The line that turns them on: each call has a key, and the SDK's retries of that call the same one. A client that
// `withOptions` makes of this one needs the line again.
client.idempotencyHeader = 'Idempotency-Key';

console.log('with keys, turns made:', await turnsAfterALostAnswer(client));

// A retry of your own, perhaps after a restart of your program, has the key of what it is about.
const order = { headers: { 'Idempotency-Key': `order-${randomUUID()}` } };
const first = await client.responses.create({ model, input: 'Order one pizza.' }, order);
const again = await client.responses.create({ model, input: 'Order one pizza.' }, order).withResponse();
const replayed = again.response.headers.get('Idempotent-Replayed');
console.log('sent again: the same response', again.data.id === first.id, '- replayed', replayed);
