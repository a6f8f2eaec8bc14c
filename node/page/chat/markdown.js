// Markdown to elements, safely: whatever is in the text, no script, no style, no form, no picture and no frame comes out.
//
// Three walls: raw HTML in the text is shown as text; what the renderer made goes through a sanitizer that knows a few elements
// and attributes; and the page's content policy runs nothing that is not a file of the node's.

import { copyButton, element } from './dom.js';
import { Marked } from '../vendor/marked.esm.js';
import purify from '../vendor/purify.es.mjs';

const TAGS = [
  ...['p', 'br', 'hr', 'strong', 'em', 'del', 'code', 'pre', 'blockquote', 'ul', 'ol', 'li', 'a'],
  ...['h1', 'h2', 'h3', 'h4', 'h5', 'h6', 'table', 'thead', 'tbody', 'tr', 'th', 'td'],
];
const ALLOWED = {
  ALLOWED_TAGS: TAGS,
  ALLOWED_ATTR: ['href', 'title', 'class', 'start', 'align'],
  // Its pattern of addresses is for all attributes but those that can hold none.
  ADD_URI_SAFE_ATTR: ['align', 'start'],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  RETURN_DOM_FRAGMENT: true,
};

const escaped = (text) => text.replace(/[&<>"']/g, (sign) => `&#${sign.codePointAt(0)};`);

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escaped(text),
    checkbox: ({ checked }) => (checked ? '☑ ' : '☐ '),
    // A picture would tell its server who reads this, and when.
    image({ href, text }) {
      return `<a href="${escaped(href)}">${escaped(text || 'picture')}</a>`;
    },
  },
});

purify.addHook('afterSanitizeAttributes', (node) => {
  if (node.hasAttribute('class') && !/^language-[\w+#-]+$/.test(node.className)) node.removeAttribute('class');
  if (node.nodeName === 'A') {
    node.setAttribute('target', '_blank');
    node.setAttribute('rel', 'noopener noreferrer nofollow');
  }
});

function fragmentOf(token) {
  const fragment = purify.sanitize(marked.parser([token]), ALLOWED);
  for (const block of fragment.querySelectorAll('pre')) dress(block);
  for (const table of fragment.querySelectorAll('table')) {
    const frame = element('div', { class: 'wide-content', tabIndex: 0, role: 'region', 'aria-label': 'Table' });
    table.replaceWith(frame);
    frame.append(table);
  }
  return fragment;
}

/** Code with its language and a button. */
function dress(block) {
  const language = block.querySelector('code')?.className.replace('language-', '') ?? '';
  const head = element('div', { class: 'code-head' }, element('span', {}, language || 'code'), copyButton('Copy code', () => block.textContent));
  const frame = element('div', { class: 'code' });
  block.tabIndex = 0;
  block.replaceWith(frame);
  frame.append(head, block);
}

/** Shows a text that grows: only the blocks that changed are made anew, so that what is selected stays so. */
export class Rendering {
  constructor(root) {
    this.root = root;
    this.blocks = [];
  }

  show(text) {
    const tokens = marked.lexer(text).filter((token) => token.type !== 'space');
    tokens.forEach((token, n) => {
      const known = this.blocks[n];
      if (known?.raw === token.raw) return;
      const nodes = [...fragmentOf(token).childNodes];
      const behind = this.blocks.slice(n + 1).flatMap((block) => block.nodes)[0] ?? null;
      known?.nodes.forEach((node) => node.remove());
      nodes.forEach((node) => this.root.insertBefore(node, behind));
      this.blocks[n] = { raw: token.raw, nodes };
    });
    for (const block of this.blocks.splice(tokens.length)) block.nodes.forEach((node) => node.remove());
  }
}
