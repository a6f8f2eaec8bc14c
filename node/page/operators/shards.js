// The picture of the placement: a square for each shard, in its node's colour.

import { svg } from './history.js';

const COLUMNS = 64;
const CELL = 8;
/** What moved is ringed for so long, in ms. */
const RINGED_MS = 8_000;

export class ShardMap {
  constructor(root, title, colours) {
    Object.assign(this, { root, title, colours, cells: [], owners: [], movedAt: [] });
  }

  /** What moved since, as `from → to → count`; null for the first picture. */
  show({ nodes, owners }, nowMs) {
    if (this.cells.length !== owners.length) this.make(owners.length);
    const isFirst = this.owners.length === 0;
    const moves = new Map();
    owners.forEach((place, shard) => {
      const owner = place === null ? null : nodes[place];
      const before = this.owners[shard];
      if (!isFirst && owner !== before) {
        this.movedAt[shard] = nowMs;
        const [from, to] = [before ?? 'nobody', owner ?? 'nobody'];
        if (!moves.has(from)) moves.set(from, new Map());
        moves.get(from).set(to, (moves.get(from).get(to) ?? 0) + 1);
      }
      this.owners[shard] = owner;
      const ringed = nowMs - (this.movedAt[shard] ?? -RINGED_MS) < RINGED_MS;
      const wanted = `cell ${owner === null ? 'nobody' : this.colours.of(owner)}${ringed ? ' moved' : ''}`;
      if (this.cells[shard].className.baseVal !== wanted) this.cells[shard].setAttribute('class', wanted);
    });
    this.describe();
    return isFirst ? null : moves;
  }

  make(count) {
    this.root.setAttribute('viewBox', `0 0 ${COLUMNS * CELL} ${Math.ceil(count / COLUMNS) * CELL}`);
    this.cells = Array.from({ length: count }, (_, shard) =>
      svg('rect', {
        x: (shard % COLUMNS) * CELL + 0.75,
        y: Math.floor(shard / COLUMNS) * CELL + 0.75,
        width: CELL - 1.5,
        height: CELL - 1.5,
        rx: 1.5,
      }),
    );
    this.root.replaceChildren(this.title, ...this.cells);
    this.owners = [];
  }

  describe() {
    const counts = Object.entries(Object.groupBy(this.owners, (owner) => owner ?? 'nobody'));
    const text = `${this.owners.length} shards: ${counts.map(([owner, of]) => `${owner} has ${of.length}`).join(', ')}`;
    if (this.title.textContent !== text) this.title.textContent = text;
  }
}

/** A colour for each node, in the order in which they were seen: it stays, whatever comes and goes. */
export class Colours {
  constructor(count) {
    Object.assign(this, { count, known: new Map() });
  }

  of(node) {
    if (!this.known.has(node)) this.known.set(node, `colour-${this.known.size % this.count}`);
    return this.known.get(node);
  }
}
