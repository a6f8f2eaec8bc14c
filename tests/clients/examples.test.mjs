// The programs of node/examples/node, as they stand: each is run, and every line that it prints is looked at. See examples.json
// and test_examples.py. They are run from a copy within this folder, since the SDK is looked for from where a program lies.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { cp, mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { after, test } from 'node:test';
import { promisify } from 'node:util';

const here = new URL('.', import.meta.url).pathname;
const examples = new URL('../../node/examples/node/', import.meta.url).pathname;
const json = async (path) => JSON.parse(await readFile(path, 'utf8'));
const expected = await json(`${here}/examples.json`);

const copy = await mkdtemp(`${here}/examples-`);
after(() => rm(copy, { recursive: true }));
for (const name of await readdir(examples)) {
  if (name.endsWith('.mjs')) await cp(examples + name, `${copy}/${name}`);
}

// Each makes a handful of requests; one that is stuck is ended.
const timeout = 120_000;

test('every example has its expectation', async () => {
  const themes = (await readdir(copy)).map((name) => name.replace('.mjs', ''));
  assert.deepEqual(themes.sort(), Object.keys(expected).sort());
});

test('the examples ask for the SDK that is tested here', async () => {
  const [theirs, ours] = [await json(`${examples}/package.json`), await json(`${here}/package.json`)];
  assert.deepEqual(theirs.dependencies, { openai: ours.dependencies.openai });
});

for (const [theme, { model, lines }] of Object.entries(expected)) {
  test(`${theme} prints what it says`, { timeout }, async () => {
    const env = { ...process.env };
    delete env.KLATCH_MODEL;
    if (model) env.KLATCH_MODEL = model;
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [`${copy}/${theme}.mjs`], { env, timeout });
    assert.equal(stderr, '');
    const printed = stdout.replace(/\n$/, '').split('\n');
    assert.equal(printed.length, lines.length, stdout);
    for (const [n, line] of printed.entries()) assert.match(line, new RegExp(`^${lines[n]}$`));
  });
}
