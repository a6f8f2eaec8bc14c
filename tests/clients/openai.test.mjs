// The official JavaScript SDK: responses, streams, conversations, and what runs in the background.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';

import OpenAI from 'openai';

import { apiKey, baseURL, patience } from './node.mjs';

const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, ...patience });

async function all(stream) {
  const events = [];
  for await (const event of stream) events.push(event);
  return events;
}

async function textsOf(items) {
  const found = [];
  for await (const item of items) found.push(item.content.map((part) => part.text).join(''));
  return found;
}

// Reads a stream up to its first piece of text, and leaves it.
async function untilText(stream) {
  const events = [];
  for await (const event of stream) {
    events.push(event);
    if (event.type === 'response.output_text.delta') return events;
  }
  assert.fail('the stream ended without text');
}

test('a response answers and can be read back', patience, async () => {
  const made = await client.responses.create({ model: 'echo', input: 'Good morning.' });
  assert.equal(made.status, 'completed');
  assert.equal(made.output_text, 'Good morning.');
  assert.deepEqual((await client.responses.retrieve(made.id)).output, made.output);
});

test('a stream tells its text in pieces', patience, async () => {
  const told = await all(await client.responses.create({ model: 'echo', input: 'one two three', stream: true }));
  assert.deepEqual(told.map((event) => event.sequence_number), [...told.keys()]);
  const pieces = told.filter((event) => event.type === 'response.output_text.delta').map((event) => event.delta);
  assert.ok(pieces.length > 1);
  assert.equal(pieces.join(''), 'one two three');
  assert.equal(told.at(-1).type, 'response.completed');
});

test('the SDK gathers a stream', patience, async () => {
  const stream = client.responses.stream({ model: 'echo', input: 'one two' });
  assert.equal((await stream.finalResponse()).output_text, 'one two');
});

test('a conversation is held, paged through, changed and deleted', patience, async () => {
  const conversation = await client.conversations.create({ metadata: { topic: 'coffee' } });
  for (const input of ['one', 'two']) {
    await client.responses.create({ model: 'echo', conversation: conversation.id, input });
  }
  const items = client.conversations.items.list(conversation.id, { order: 'asc', limit: 2 });
  assert.deepEqual(await textsOf(items), ['one', 'one', 'two', 'two']);

  const changed = await client.conversations.update(conversation.id, { metadata: { cup: 'full' } });
  assert.deepEqual(changed.metadata, { cup: 'full' });

  assert.equal((await client.conversations.delete(conversation.id)).deleted, true);
  await assert.rejects(client.conversations.retrieve(conversation.id), OpenAI.NotFoundError);
});

test('a background response is polled to its end', patience, async () => {
  let seen = await client.responses.create({ model: 'slow', input: 'hi', background: true });
  while (seen.status === 'queued' || seen.status === 'in_progress') {
    await pause(50);
    seen = await client.responses.retrieve(seen.id);
  }
  assert.equal(seen.status, 'completed');
});

test('a background stream is resumed where it was left', patience, async () => {
  const begun = await untilText(
    await client.responses.create({ model: 'slow', input: 'hi', background: true, stream: true }),
  );
  const { id } = begun[0].response;
  const starting_after = begun.at(-1).sequence_number;
  const rest = await all(await client.responses.retrieve(id, { stream: true, starting_after }));
  assert.equal(rest.at(-1).type, 'response.completed');
  assert.deepEqual([...begun, ...rest], await all(await client.responses.retrieve(id, { stream: true })));
});

test('a running response is cancelled', patience, async () => {
  const begun = await untilText(
    await client.responses.create({ model: 'slow', input: 'hi', background: true, stream: true }),
  );
  const { id } = begun[0].response;
  await client.responses.cancel(id);
  const told = await all(await client.responses.retrieve(id, { stream: true }));
  assert.equal(told.at(-1).response.status, 'cancelled');
});

test('a refusal is the error that the SDK has for it', patience, async () => {
  const stranger = client.withOptions({ apiKey: 'nonsense' });
  await assert.rejects(stranger.models.list(), (refused) => {
    assert.ok(refused instanceof OpenAI.AuthenticationError);
    assert.equal(refused.code, 'invalid_api_key');
    assert.ok(refused.requestID);
    return true;
  });
});
