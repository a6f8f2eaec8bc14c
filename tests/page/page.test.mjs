// All suites, one after the other, in one browser: a node that one of them killed and started again ends with this process.

import { withBrowser } from './browser.mjs';

withBrowser();
for (const suite of ['vendor', 'login', 'conversations', 'answers', 'safety', 'access', 'operators', 'resume']) {
  await import(`./suites/${suite}.mjs`);
}
