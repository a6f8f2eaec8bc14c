// The operators' page: what the cluster is, live; a node that dies is seen to die.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { person } from '../browser.mjs';
import { api, kill, nodes, opsUrl } from '../node.mjs';

const opened = async (options) => {
  const seen = await person({ at: opsUrl, loggedIn: false, ...options });
  await seen.page.getByRole('status').filter({ hasText: /^live$/ }).waitFor();
  return seen;
};

const tile = (seen, node) => seen.page.locator('.node').filter({ hasText: node.name });

test('nodes, shards, turns and streams are shown as they are', async () => {
  const seen = await opened();
  assert.equal(await seen.page.locator('.cell').count(), 1024);
  assert.equal(await seen.page.locator('#up').innerText(), '3');
  const { members } = await (await fetch(`${opsUrl}/cluster`)).json();
  for (const member of members) {
    const shown = await tile(seen, { name: member.node }).innerText();
    assert.match(shown, /up/);
    assert.match(shown, new RegExp(`${member.shards}\\s*shards`));
  }
  const colours = await seen.page.evaluate(() => Object.fromEntries(Object.entries(Object.groupBy([...document.querySelectorAll('.cell')], (cell) => cell.className.baseVal)).map(([name, of]) => [name, of.length])));
  assert.deepEqual(Object.values(colours).sort(), members.map((member) => member.shards).sort());
  assert.equal((await seen.page.evaluate(() => document.querySelectorAll('button:not(#theme), input, form').length)), 0, 'it changes nothing');

  // The stream is read at the node whose page this is.
  const chat = await person({ at: nodes[0].url });
  await chat.say('tick', 'long');
  await chat.begun();
  await seen.page.waitForFunction(() => document.querySelector('#turns').textContent === '1');
  await seen.page.locator('.chart').filter({ hasText: 'streams open' }).locator('b').filter({ hasText: /^1$/ }).waitFor();
  await chat.button('Stop').click();
  await chat.idle();
  await seen.page.waitForFunction(() => document.querySelector('#turns').textContent === '0');
  await chat.done();
  await seen.done();
});

test('a death is seen: on the tile, on the map, and in words', async (t) => {
  const [seen, dark] = [await opened({ viewport: { width: 1180, height: 1180 } }), await opened({ colorScheme: 'dark', viewport: { width: 1180, height: 1180 } })];
  for (let n = 0; n < 40; n += 1) await api('POST', '/v1/responses', { model: 'echo', input: 'a little traffic' });
  const victim = nodes[1];
  const before = Number((await tile(seen, victim).locator('.loads b').first().innerText()).replace(',', ''));
  const restart = kill(victim, t);
  await tile(seen, victim).getByText(/^gone since/).waitFor();
  await seen.page.waitForFunction((count) => document.querySelectorAll('.cell.moved').length === count, before);
  await seen.page.getByText(`${victim.name} is gone`).waitFor();
  await seen.page.getByText(new RegExp(`^.*${before} shards of ${victim.name} moved: \\d+ to node-0, \\d+ to node-2$`)).waitFor();
  assert.equal(await tile(seen, victim).locator('.loads b').first().innerText(), '0');
  await seen.picture('operators');
  await tile(dark, victim).getByText(/^gone since/).waitFor();
  await dark.picture('operators-dark');
  await restart();
  await seen.page.getByText(`${victim.name} is back`).waitFor();
  await seen.page.waitForFunction(() => document.querySelector('#up').textContent === '3');
  await seen.done();
  await dark.done();
});

test('a node that does not answer any more is not taken for live', async (t) => {
  const seen = await opened();
  const restart = kill(nodes[0], t);
  await seen.page.getByText('this node does not answer').waitFor();
  await restart();
  await seen.page.getByRole('status').filter({ hasText: /^live$/ }).waitFor();
  await seen.done();
});

test('it fits a phone', async () => {
  const seen = await opened({ viewport: { width: 375, height: 720 } });
  assert.ok(await seen.page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  await seen.done();
});
