// The nodes, those that just went among them, and what changed.

import { element } from '../chat/dom.js';

/** A node that went stays in sight for so long, in ms. */
const GONE_MS = 60_000;
const CHANGES_MAX = 50;

const clock = (ms) => new Date(ms).toLocaleTimeString('en-GB');

export class Nodes {
  constructor(list, colours) {
    Object.assign(this, { list, colours, known: new Map(), first: true });
  }

  /** Sentences about what changed. */
  show(members, shards, nowMs) {
    const told = [];
    const here = new Map(members.map((member) => [member.node, member]));
    for (const member of members) {
      const before = this.known.get(member.node);
      if (!this.first) told.push(...differences(before, member));
      this.known.set(member.node, { member, goneAt: null });
    }
    for (const [name, known] of this.known) {
      if (here.has(name)) continue;
      if (known.goneAt === null) {
        known.goneAt = nowMs;
        told.push(`${name} is gone`);
      }
      if (nowMs - known.goneAt > GONE_MS) this.known.delete(name);
    }
    this.first = false;
    const tiles = [...this.known.values()].sort((one, other) => one.member.node.localeCompare(other.member.node));
    this.list.replaceChildren(...tiles.map((known) => this.tile(known, shards)));
    return told;
  }

  tile({ member, goneAt }, shards) {
    const { node, status, address, load, incarnation } = member;
    const owned = goneAt === null ? member.shards : 0;
    const silent = goneAt === null && !load;
    const state = goneAt !== null ? `gone since ${clock(goneAt)}` : silent ? `${status}, does not answer` : status;
    const kind = goneAt !== null ? 'gone' : silent ? 'silent' : status;
    const figure = (value, label) => element('div', {}, element('b', {}, value === undefined ? '–' : value.toLocaleString('en')), element('span', {}, label));
    const bar = element('div', { class: `bar ${this.colours.of(node)}` }, element('i', {}));
    bar.firstChild.style.width = `${shards ? (100 * owned) / shards : 0}%`;
    return element(
      'li',
      { class: `node ${kind}` },
      element('h3', {}, element('i', { class: `dot ${this.colours.of(node)}` }), node, element('em', {}, state)),
      element('p', { class: 'where', title: 'address · incarnation' }, [address, incarnation].filter(Boolean).join(' · ')),
      bar,
      element(
        'div',
        { class: 'loads' },
        figure(owned, 'shards'),
        figure(goneAt === null ? load?.active_conversations : undefined, 'conversations'),
        figure(goneAt === null ? load?.open_turns : undefined, 'turns open'),
      ),
    );
  }
}

function differences(before, member) {
  const { node, status, incarnation } = member;
  if (!before) return [`${node} came, ${status}`];
  if (before.goneAt !== null) return [`${node} is back, ${status}`];
  if (before.member.incarnation !== incarnation) return [`${node} began anew, ${status}`];
  return before.member.status === status ? [] : [`${node} is ${status}`];
}

/** What moved, in a sentence for each node that lost shards. */
export function moved(moves) {
  return [...moves].map(([from, to]) => {
    const count = [...to.values()].reduce((sum, of) => sum + of, 0);
    return `${count} shards of ${from} moved: ${[...to].sort().map(([name, of]) => `${of} to ${name}`).join(', ')}`;
  });
}

export class Changes {
  constructor(list) {
    Object.assign(this, { list, any: false });
  }

  tell(sentences, nowMs) {
    for (const sentence of sentences) {
      if (!this.any) this.list.replaceChildren();
      this.any = true;
      this.list.prepend(element('li', {}, element('time', {}, clock(nowMs)), ` ${sentence}`));
      while (this.list.children.length > CHANGES_MAX) this.list.lastChild.remove();
    }
  }
}
