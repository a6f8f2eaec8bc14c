// Another way from an earlier point: an older response is answered again, and both branches go on.

import OpenAI from 'openai';

const client = new OpenAI({ baseURL: `${process.env.KLATCH_URL}/v1`, apiKey: process.env.KLATCH_TOKEN });
const model = process.env.KLATCH_MODEL ?? 'eliza';

const say = (input, after) => client.responses.create({ model, input, previous_response_id: after?.id });

// What was said up to a response, oldest first.
async function told(response) {
  const previous = response.previous_response_id;
  const before = previous ? await told(await client.responses.retrieve(previous)) : [];
  const { data } = await client.responses.inputItems.list(response.id);
  return [...before, ...data.map((item) => item.content[0].text), response.output_text];
}

const hello = await say('Hello. I am unhappy.');
const work = await say('It is because of my work.', hello);
const late = await say('I always have to stay late.', work);

// Back to the first answer, and another way from there. What both share is stored once.
const family = await say('It is because of my mother.', hello);

console.log(['one branch:', ...(await told(late))].join('\n  '));
console.log(['the other:', ...(await told(family))].join('\n  '));

// A conversation is forked behind one of its items; the SDK has no method for it, as it is Klatch's own.
const conversation = await client.conversations.create();
for (const input of ['I am tired.', 'I dreamt of my computer.']) {
  await client.responses.create({ model, conversation: conversation.id, input });
}
const { data } = await client.conversations.items.list(conversation.id, { order: 'asc' });
const branch = await client.post(`/conversations/${conversation.id}/fork`, { body: { after: data[1].id } });
await client.responses.create({ model, conversation: branch.id, input: 'It is because of my brother.' });

async function asked({ id }) {
  const { data } = await client.conversations.items.list(id, { order: 'asc' });
  return data.filter((item) => item.role === 'user').map((item) => item.content[0].text);
}

console.log('the conversation:', ...(await asked(conversation)));
console.log('its branch:', ...(await asked(branch)));
