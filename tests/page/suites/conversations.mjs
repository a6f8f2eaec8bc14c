// The list: new ones, titles, search, renaming, deleting, the address.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { person } from '../browser.mjs';
import { api } from '../node.mjs';

test('a conversation is made by its first message, renamed, found by its title and deleted', async () => {
  const chat = await person();
  const mark = `walrus ${Date.now()}`;
  await chat.ask(`Tell me of the ${mark}`, 'echo');
  const id = chat.conversation;
  assert.match(id, /^conv_/);
  await chat.page.getByRole('heading', { level: 1, name: `Tell me of the ${mark}` }).waitFor();
  assert.equal((await api('GET', `/v1/conversations/${id}`)).body.metadata.title, `Tell me of the ${mark}`);

  await api('POST', `/v1/conversations/${id}`, { metadata: { title: `Tell me of the ${mark}`, other: 'kept' } });
  await chat.page.getByRole('button', { name: `Rename “Tell me of the ${mark}”` }).click();
  await chat.page.getByLabel('Title', { exact: true }).fill(`On the ${mark}`);
  await chat.page.keyboard.press('Enter');
  await chat.page.getByRole('heading', { level: 1, name: `On the ${mark}` }).waitFor();
  assert.deepEqual((await api('GET', `/v1/conversations/${id}`)).body.metadata, { title: `On the ${mark}`, other: 'kept' });

  await chat.fresh();
  await chat.ask('something else', 'echo');
  await chat.page.getByLabel('Search conversations').fill('ON walrus');
  await chat.page.getByRole('status').filter({ hasText: /^\d+ found$/ }).waitFor({ state: 'attached' });
  for (const title of await chat.entries.allInnerTexts()) assert.match(title, /walrus/);
  await chat.page.getByRole('link', { name: `On the ${mark}` }).click();
  await chat.asked.filter({ hasText: mark }).waitFor();

  await chat.page.getByRole('button', { name: `Delete “On the ${mark}”` }).click();
  await chat.page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click();
  await chat.page.getByRole('button', { name: `Delete “On the ${mark}”` }).click();
  await chat.page.getByRole('dialog').getByRole('button', { name: 'Delete' }).click();
  await chat.page.getByText('What is on your mind?').waitFor();
  assert.equal((await api('GET', `/v1/conversations/${id}`)).status, 404);
  await chat.done();
});

test('a search finds what is far down the list', async () => {
  const chat = await person();
  const mark = `needle${Date.now()}`;
  await api('POST', '/v1/conversations', { metadata: { title: mark } });
  await Promise.all(Array.from({ length: 230 }, (_, n) => api('POST', '/v1/conversations', { metadata: { title: `hay ${n}` } })));
  await chat.page.reload();
  await chat.ready();
  assert.equal(await chat.entries.count(), 100);
  await chat.page.getByLabel('Search conversations').fill(mark);
  await chat.page.getByRole('link', { name: mark }).waitFor();
  await chat.done();
});

test('the address leads to a conversation, and so does the way back', async () => {
  const chat = await person();
  await chat.ask('the first', 'echo');
  const first = chat.conversation;
  await chat.fresh();
  await chat.ask('the second');
  await chat.page.goBack();
  await chat.page.goBack();
  await chat.asked.filter({ hasText: 'the first' }).waitFor();
  assert.equal(chat.conversation, first);
  await chat.page.goto(`${chat.at}/#conv_${'0'.repeat(48)}`);
  await chat.page.getByRole('alert').filter({ hasText: /not there any more.*/ }).waitFor();
  await chat.page.getByText('What is on your mind?').waitFor();
  await chat.done();
});

test('a long conversation is read from its end, and earlier messages on demand', async () => {
  const chat = await person();
  const id = (await api('POST', '/v1/conversations', { metadata: { title: 'long' } })).body.id;
  for (let n = 0; n < 80; n += 20) {
    const items = Array.from({ length: 20 }, (_, k) => ({ role: 'user', content: `number ${n + k}` }));
    await api('POST', `/v1/conversations/${id}/items`, { items });
  }
  await chat.page.goto(`${chat.at}/#${id}`);
  await chat.asked.filter({ hasText: 'number 79' }).waitFor();
  assert.equal(await chat.messages.count(), 60);
  await chat.button('Show earlier messages').click();
  await chat.asked.getByText('number 0', { exact: true }).waitFor();
  assert.equal(await chat.messages.count(), 80);
  assert.equal((await chat.texts())[0], 'number 0');
  await chat.done();
});
