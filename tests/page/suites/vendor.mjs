// The libraries in the binary are those of npm, byte for byte, in the versions of the lock file.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { vendored } from '../browser.mjs';

const packaged = (path) => readFileSync(new URL(`../node_modules/${path}`, import.meta.url), 'utf8');

for (const [own, theirs] of [
  ['marked.esm.js', 'marked/lib/marked.esm.js'],
  ['LICENSE.marked', 'marked/LICENSE'],
  ['purify.es.mjs', 'dompurify/dist/purify.es.mjs'],
  ['LICENSE.dompurify', 'dompurify/LICENSE'],
]) {
  test(`${own} is the package's`, () => assert.ok(vendored(own) === packaged(theirs), `${own} is not ${theirs}`));
}

test('the versions are those that the list says', () => {
  for (const name of ['marked', 'dompurify']) {
    const { version } = JSON.parse(packaged(`${name}/package.json`));
    assert.ok(vendored('README.md').includes(`${name} ${version},`), `${name} ${version}`);
  }
});
