// A conversation with a name and things in it: metadata, items, paging, finding it again, and its end.

import { randomUUID } from 'node:crypto';

import OpenAI from 'openai';

const client = new OpenAI({ baseURL: `${process.env.KLATCH_URL}/v1`, apiKey: process.env.KLATCH_TOKEN });
const model = process.env.KLATCH_MODEL ?? 'eliza';

// What was said elsewhere can be put in at the beginning.
const ticket = `ticket-${randomUUID()}`;
const conversation = await client.conversations.create({
  metadata: { ticket, state: 'open' },
  items: [
    { type: 'message', role: 'user', content: 'My printer is on fire.' },
    { type: 'message', role: 'assistant', content: 'Please go on.' },
  ],
});
await client.responses.create({ model, conversation: conversation.id, input: 'It is still burning.' });

// Something that a colleague adds, without asking for an answer.
await client.conversations.items.create(conversation.id, {
  items: [{ type: 'message', role: 'user', content: 'It has burned down.' }],
});

// Two items a page; the SDK gets the next page by itself.
for await (const item of client.conversations.items.list(conversation.id, { order: 'asc', limit: 2 })) {
  console.log(`${item.role}: ${item.content[0].text}`);
}

// The whole of the metadata is replaced.
await client.conversations.update(conversation.id, { metadata: { ticket, state: 'closed' } });

// Klatch lists conversations too, which the SDK has no method for.
const found = await client.get('/conversations', { query: { metadata: { ticket } } });
console.log('found again:', ...found.data.map((one) => one.metadata.state));

console.log('deleted:', (await client.conversations.delete(conversation.id)).deleted);
try {
  await client.conversations.retrieve(conversation.id);
} catch (error) {
  if (!(error instanceof OpenAI.NotFoundError)) throw error;
  console.log('and gone:', error.status);
}
