// Lines of the last two minutes.

import { element } from '../chat/dom.js';

const POINTS = 120;
const [WIDTH, HEIGHT] = [240, 48];

export function svg(name, attributes = {}) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** A figure with its line; a counter is shown by what it rises in a second, and its total beside it. */
export class Chart {
  constructor(label, { isCounter = false, alarms = false } = {}) {
    Object.assign(this, { label, isCounter, alarms, points: [], last: null });
    this.value = element('b', {}, '–');
    this.total = element('small', {});
    this.line = svg('polyline', { class: 'line' });
    const drawing = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
    drawing.append(this.line);
    this.element = element('div', { class: 'chart' }, element('span', {}, label), this.value, this.total, drawing);
  }

  add(value, atMs) {
    let shown = value;
    if (this.isCounter) {
      const { last } = this;
      this.last = { value, atMs };
      this.total.textContent = `${value.toLocaleString('en')} in all`;
      // A counter that fell belongs to a process that began anew.
      shown = last && value >= last.value ? ((value - last.value) * 1000) / (atMs - last.atMs) : 0;
    }
    this.points.push(shown);
    this.points.splice(0, this.points.length - POINTS);
    this.value.textContent = this.isCounter ? `${shown.toFixed(shown < 10 ? 1 : 0)}/s` : shown.toLocaleString('en');
    this.element.classList.toggle('alarm', this.alarms && value > 0);
    this.draw();
  }

  draw() {
    const most = Math.max(1, ...this.points);
    const x = (n) => WIDTH - ((this.points.length - 1 - n) * WIDTH) / (POINTS - 1);
    const y = (value) => HEIGHT - 2 - (value / most) * (HEIGHT - 4);
    this.line.setAttribute('points', this.points.map((value, n) => `${x(n).toFixed(1)},${y(value).toFixed(1)}`).join(' '));
  }
}
