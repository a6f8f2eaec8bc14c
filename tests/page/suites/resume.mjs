// Whatever breaks, the answer goes on: a reload, another browser, a network that is away, a node that is killed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { person } from '../browser.mjs';
import { api, edge, kill, nodes, owner } from '../node.mjs';

const WORDS = 80;
/** What `long` answers to this word. */
const whole = (word) => Array(WORDS).fill(word).join(' ');

/** The answer on the page is what is stored, once, and all of it. */
async function check(chat, word) {
  await chat.idle();
  const { data } = (await api('GET', `/v1/conversations/${chat.conversation}/items?order=asc`, undefined, alive())).body;
  assert.deepEqual(data.map((item) => item.content[0].text.trim()), [word, whole(word)]);
  assert.deepEqual((await chat.texts()).map((text) => text.trim()), [word, whole(word)]);
}

const alive = () => nodes.find((node) => !node.killed).url;

test('a reload in the middle of an answer does not end it', async () => {
  const chat = await person();
  await chat.say('again', 'long');
  await chat.begun();
  await chat.page.reload();
  await chat.ready();
  await chat.begun();
  assert.ok(await chat.writing.isVisible());
  await check(chat, 'again');
  await chat.done();
});

test('what was sent and not yet taken when the page was closed happens once', async () => {
  const chat = await person();
  let taken;
  const held = new Promise((done) => (taken = done));
  // The request reaches the service, and its answer never the page.
  await chat.page.route('**/v1/responses', async (route) => {
    await route.fetch().catch(() => {});
    taken();
  });
  await chat.say('once', 'echo');
  await held;
  await chat.page.unroute('**/v1/responses');
  await chat.page.reload();
  await chat.ready();
  await chat.answers.first().waitFor();
  await chat.idle();
  await chat.page.waitForFunction(() => document.querySelectorAll('.message').length === 2);
  const { data } = (await api('GET', `/v1/conversations/${chat.conversation}/items`)).body;
  assert.equal(data.length, 2);
  await chat.done();
});

test('two browsers in one conversation see the same, as it is written', async () => {
  const [one, two] = [await person(), await person()];
  await one.ask('hello', 'echo');
  await two.page.goto(`${two.at}/#${one.conversation}`);
  await two.answers.first().waitFor();
  await one.say('watch', 'long');
  await two.begun(two.answers.nth(1));
  assert.ok(await two.writing.isVisible(), 'it is seen while it is written');
  await two.say('and now', 'echo');
  await one.page.getByText('waits for its turn').waitFor();
  await two.button('Stop').click();
  await one.idle();
  await two.idle();
  for (const chat of [one, two]) await chat.page.waitForFunction(() => document.querySelectorAll('.message').length === 6);
  assert.deepEqual(await one.texts(), await two.texts());
  await one.done();
  await two.done();
});

test('a network that was away is noticed, and the answer goes on where it broke', async (t) => {
  const chat = await person();
  const asked = [];
  chat.page.on('request', (request) => request.url().includes('starting_after') && asked.push(request.url()));
  await chat.say('lost', 'long');
  await chat.begun();
  // Chromium lets a stream that is open go on, so the first of it is cut at its source.
  const victim = await edge();
  await chat.context.setOffline(true);
  const restart = kill(victim, t);
  await chat.page.getByText(/connection lost/).waitFor();
  assert.equal(await chat.page.getByRole('status').filter({ hasText: 'Reconnecting…' }).count(), 1);
  await chat.context.setOffline(false);
  await chat.page.getByText('the connection broke, and the answer went on').waitFor();
  await check(chat, 'lost');
  assert.ok(asked.length > 0 && /starting_after=\d+/.test(asked.at(-1)), asked.join());
  await restart();
  await chat.done();
});

test('the node that makes the answer is killed, and it goes on', async (t) => {
  const chat = await person();
  await chat.say('survive', 'long');
  await chat.begun();
  const restart = kill(await owner(), t);
  await check(chat, 'survive');
  await chat.picture('survived');
  await restart();
  await chat.done();
});

test('the only node that the page knows is killed, and it goes on when that is back', async (t) => {
  const [node] = nodes;
  const chat = await person({ at: node.url });
  await chat.say('return', 'long');
  await chat.begun();
  const restart = kill(node, t);
  await chat.page.getByText(/connection lost/).waitFor();
  await chat.field.fill('typed meanwhile');
  await restart();
  await chat.page.getByText('the connection broke, and the answer went on').waitFor();
  await check(chat, 'return');
  assert.equal(await chat.field.inputValue(), 'typed meanwhile');
  await chat.done();
});
