// The list of conversations: shown page by page, searched by title, renamed, deleted.

import * as api from './api.js';
import { askText, askYes } from './dialogs.js';
import { button, byId, element } from './dom.js';
import { forget } from './drafts.js';
import { icon } from './icons.js';
import { told } from './notices.js';

/** A search reads the whole list, so far: titles are metadata, and the service compares those whole only. */
const SEARCH_PAGES_MAX = 30;
const REFRESH_MS = 20_000;
/** Typing pauses so long before the list is read on for a search. */
const TYPED_MS = 200;
export const TITLE_MAX = 200;

export class Sidebar {
  /** `open(id)` shows a conversation, none for a new one. */
  constructor(open) {
    this.open = open;
    this.known = [];
    this.after = null;
    this.current = null;
    byId('more').addEventListener('click', told(() => this.readOn()));
    byId('search').addEventListener('input', () => this.search());
    byId('search').addEventListener('keydown', (event) => {
      if (event.key === 'ArrowDown') byId('conversations').querySelector('a')?.focus();
    });
    byId('conversations').addEventListener('keydown', (event) => this.arrow(event));
    byId('new').addEventListener('click', () => open(null));
    document.addEventListener('visibilitychange', () => this.refresh());
    setInterval(() => this.refresh(), REFRESH_MS);
  }

  async load() {
    const page = await api.conversations.list();
    this.known = page.data;
    this.after = page.has_more ? page.last_id : null;
    this.draw();
  }

  /** What others made or renamed; a page that is not seen asks nothing. */
  async refresh() {
    if (document.hidden) return;
    try {
      const page = await api.conversations.list(undefined, { once: true });
      const fresh = new Map(page.data.map((one) => [one.id, one]));
      const oldest = page.data.at(-1)?.created_at ?? 0;
      // Newer than the page's oldest and not on it: deleted elsewhere.
      const rest = this.known.filter((one) => !fresh.has(one.id) && page.has_more && one.created_at <= oldest);
      this.known = [...page.data, ...rest];
      this.draw();
    } catch {
      // The next one may be better; what the person does tells its own errors.
    }
  }

  async readOn() {
    const page = await api.conversations.list(this.after);
    const ids = new Set(this.known.map((one) => one.id));
    this.known.push(...page.data.filter((one) => !ids.has(one.id)));
    this.after = page.has_more ? page.last_id : null;
    this.draw();
  }

  search() {
    this.draw();
    clearTimeout(this.typing);
    this.typing = setTimeout(told(async () => {
      for (let n = 0; this.after && this.wanted && n < SEARCH_PAGES_MAX; n += 1) await this.readOn();
    }), TYPED_MS);
  }

  get wanted() {
    return byId('search').value.trim().toLowerCase();
  }

  add(conversation) {
    this.known = [conversation, ...this.known.filter((one) => one.id !== conversation.id)];
    this.draw();
  }

  show(current) {
    this.current = current;
    this.draw();
  }

  draw() {
    const wanted = this.wanted.split(/\s+/);
    const fits = (one) => wanted.every((word) => titleOf(one).toLowerCase().includes(word));
    const shown = this.known.filter(fits);
    const list = byId('conversations');
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.of : null;
    list.replaceChildren(...shown.map((one) => this.entry(one)));
    if (focused) list.querySelector(`[data-of="${CSS.escape(focused)}"]`)?.focus();
    byId('found').textContent = this.wanted ? `${shown.length} found` : '';
    byId('more').hidden = !this.after;
  }

  entry(one) {
    const title = titleOf(one);
    const link = element('a', { href: `#${one.id}`, title }, element('span', {}, title));
    link.dataset.of = one.id;
    if (one.metadata.branch_of) link.prepend(element('span', { class: 'branch', role: 'img', 'aria-label': 'copy of an earlier conversation' }, icon('branch')));
    if (one.id === this.current) link.setAttribute('aria-current', 'page');
    const act = (sign, label, work) => {
      const made = button(icon(sign), told(work), { class: 'icon', title: label, 'aria-label': `${label} “${title}”` });
      made.dataset.of = `${one.id} ${label}`;
      return made;
    };
    return element('li', {}, link, act('rename', 'Rename', () => this.rename(one)), act('remove', 'Delete', () => this.remove(one)));
  }

  async rename(one) {
    const title = await askText('Rename the conversation', titleOf(one), 'Rename');
    if (title === null) return;
    // The whole metadata is replaced, so it is read first.
    const { metadata } = await api.conversations.read(one.id);
    const changed = await api.conversations.update(one.id, { ...metadata, title: title.slice(0, TITLE_MAX) });
    this.known = this.known.map((known) => (known.id === one.id ? changed : known));
    this.draw();
    if (one.id === this.current) this.renamed?.(changed);
  }

  async remove(one) {
    const text = `“${titleOf(one)}” goes with all its messages. This cannot be undone.`;
    if (!(await askYes('Delete the conversation?', text, 'Delete'))) return;
    await api.conversations.remove(one.id);
    forget(one.id);
    this.gone(one.id);
  }

  gone(id) {
    this.known = this.known.filter((known) => known.id !== id);
    this.draw();
    if (id === this.current) this.open(null);
  }

  arrow(event) {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const links = [...byId('conversations').querySelectorAll('a')];
    const at = links.findIndex((link) => link.parentElement.contains(document.activeElement));
    (links[at + by] ?? (by < 0 ? byId('search') : links.at(-1))).focus();
  }
}

export function titleOf(conversation) {
  return conversation.metadata.title || 'Untitled';
}

/** Out of the first thing that was said. */
export function titleFrom(text) {
  const line = text.trim().replace(/\s+/g, ' ');
  return line.length > 60 ? `${[...line].slice(0, 59).join('')}…` : line;
}

