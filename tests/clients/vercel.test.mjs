// The Vercel AI SDK through its OpenAI provider, which speaks the Responses API: text, streams, tools,
// and the two ways to go on with what was said before.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createOpenAI } from '@ai-sdk/openai';
import { APICallError, generateText, isStepCount, jsonSchema, streamText, tool } from 'ai';

import { apiKey, baseURL, patience } from './node.mjs';

const provider = createOpenAI({ baseURL, apiKey });
const echo = provider.responses('echo');
const question = 'What is the weather in Paris?';
const answer = 'It is 21 degrees in Paris.';

// Options of one call: what the provider is told, no retries, and an end to waiting.
function options(openai = {}) {
  return { maxRetries: 0, timeout: patience.timeout, providerOptions: { openai } };
}

function weather(cities) {
  return tool({
    description: 'The weather in a city.',
    inputSchema: jsonSchema({
      type: 'object',
      properties: { city: { type: 'string' } },
      required: ['city'],
      additionalProperties: false,
    }),
    execute: async ({ city }) => {
      cities.push(city);
      return { degrees: 21 };
    },
  });
}

async function api(method, path, body) {
  const answered = await fetch(`${baseURL}${path}`, {
    method,
    headers: { Authorization: `Bearer ${apiKey}`, 'Content-Type': 'application/json' },
    body: body && JSON.stringify(body),
  });
  assert.equal(answered.status, 200);
  return answered.json();
}

test('text is generated', patience, async () => {
  const made = await generateText({ model: echo, prompt: 'Good morning.', ...options() });
  assert.equal(made.text, 'Good morning.');
  assert.equal(made.finishReason, 'stop');
  assert.ok(made.usage.outputTokens > 0);
  assert.match(made.providerMetadata.openai.responseId, /^resp_/);
});

test('text is streamed in pieces', patience, async () => {
  const stream = streamText({ model: echo, prompt: 'one two three', ...options() });
  const pieces = [];
  for await (const piece of stream.textStream) pieces.push(piece);
  assert.ok(pieces.length > 1);
  assert.equal(pieces.join(''), 'one two three');
  assert.equal(await stream.finishReason, 'stop');
  assert.ok((await stream.usage).outputTokens > 0);
});

test('messages of earlier answers are sent again', patience, async () => {
  const messages = [{ role: 'user', content: 'one' }];
  const first = await generateText({ model: echo, messages, ...options() });
  messages.push(...first.response.messages, { role: 'user', content: 'two' });
  const second = await generateText({ model: echo, instructions: 'Be brief.', messages, ...options() });
  assert.equal(second.text, 'two');
});

test('messages are sent in full to a node that stores nothing', patience, async () => {
  const messages = [{ role: 'user', content: 'one' }];
  const first = await generateText({ model: echo, messages, ...options({ store: false }) });
  messages.push(...first.response.messages, { role: 'user', content: 'two' });
  const second = await generateText({ model: echo, messages, ...options({ store: false }) });
  assert.equal(second.text, 'two');
});

test('a chain goes on by previousResponseId', patience, async () => {
  const first = await generateText({ model: echo, prompt: 'one', ...options() });
  const previousResponseId = first.providerMetadata.openai.responseId;
  const second = await generateText({ model: echo, prompt: 'two', ...options({ previousResponseId }) });
  assert.equal(second.text, 'two');
  const read = await api('GET', `/responses/${second.providerMetadata.openai.responseId}`);
  assert.equal(read.previous_response_id, previousResponseId);
});

test('a conversation keeps what was said', patience, async () => {
  const { id: conversation } = await api('POST', '/conversations', {});
  for (const prompt of ['one', 'two']) {
    const made = await generateText({ model: echo, prompt, ...options({ conversation }) });
    assert.equal(made.text, prompt);
  }
  const { data } = await api('GET', `/conversations/${conversation}/items?order=asc`);
  assert.deepEqual(
    data.map((item) => item.content[0].text),
    ['one', 'one', 'two', 'two'],
  );
});

test('a tool is called and its result is answered', patience, async () => {
  const cities = [];
  const made = await generateText({
    model: provider.responses('tools'),
    prompt: question,
    tools: { get_weather: weather(cities) },
    stopWhen: isStepCount(2),
    ...options(),
  });
  assert.equal(made.text, answer);
  assert.deepEqual(cities, ['Paris']);
  assert.deepEqual(
    made.steps.map((step) => step.finishReason),
    ['tool-calls', 'stop'],
  );
});

test('a tool is called in a stream', patience, async () => {
  const cities = [];
  const stream = streamText({
    model: provider.responses('tools'),
    prompt: question,
    tools: { get_weather: weather(cities) },
    stopWhen: isStepCount(2),
    ...options(),
  });
  assert.equal(await stream.text, answer);
  assert.deepEqual(cities, ['Paris']);
});

test('a failing model is an error of the stream', patience, async () => {
  const failures = [];
  const stream = streamText({
    model: provider.responses('failing'),
    prompt: 'hi',
    onError: ({ error }) => failures.push(error),
    ...options(),
  });
  await stream.consumeStream();
  assert.equal(failures.length, 1);
});

test('a refusal tells its status and its message', patience, async () => {
  const stranger = createOpenAI({ baseURL, apiKey: 'nonsense' }).responses('echo');
  await assert.rejects(generateText({ model: stranger, prompt: 'hi', ...options() }), (refused) => {
    assert.ok(APICallError.isInstance(refused));
    assert.equal(refused.statusCode, 401);
    assert.ok(refused.data.error.message);
    return true;
  });
});
