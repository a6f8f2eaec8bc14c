// The operators' page: what `/cluster`, `/cluster/shards` and `/metrics` of this node say, once a second. It changes nothing.

import { byId } from '../chat/dom.js';
import { Chart } from './history.js';
import { parse, total } from './metrics.js';
import { Changes, Nodes, moved } from './nodes.js';
import { Colours, ShardMap } from './shards.js';

const EVERY_MS = 1_000;
/** A node that answers nothing for so long is taken for dead. */
const ANSWER_MS = 5_000;
/** Classes in operators.css. */
const COLOURS = 10;

const colours = new Colours(COLOURS);
const map = new ShardMap(byId('map'), byId('map-text'), colours);
const nodes = new Nodes(byId('nodes'), colours);
const changes = new Changes(byId('changes'));
const charts = {
  klatch_http_streams_open: new Chart('streams open'),
  klatch_turns_total: new Chart('turns ended', { isCounter: true }),
  klatch_appends_total: new Chart('appends', { isCounter: true }),
  klatch_fenced_writes_total: new Chart('writes fenced off', { isCounter: true, alarms: true }),
  klatch_http_streams_cut_total: new Chart('streams cut', { isCounter: true, alarms: true }),
  klatch_http_requests_total: new Chart('requests', { isCounter: true }),
};

async function read(path) {
  const response = await fetch(path, { cache: 'no-store', signal: AbortSignal.timeout(ANSWER_MS) });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
  return response;
}

async function look() {
  const [cluster, shards, metrics] = await Promise.all([
    read('/cluster').then((answer) => answer.json()),
    read('/cluster/shards').then((answer) => answer.json()),
    read('/metrics').then((answer) => answer.text()),
  ]);
  const nowMs = Date.now();
  // In the order of their names, so that all nodes' pages colour alike.
  for (const name of shards.nodes) colours.of(name);
  show(cluster, shards);
  changes.tell(nodes.show(cluster.members, shards.owners.length, nowMs), nowMs);
  changes.tell(moved(map.show(shards, nowMs) ?? new Map()), nowMs);
  const samples = parse(metrics);
  for (const [name, chart] of Object.entries(charts)) chart.add(total(samples, name), nowMs);
}

function show(cluster, shards) {
  const sum = (of) => cluster.members.reduce((all, member) => all + (member.load?.[of] ?? 0), 0).toLocaleString('en');
  byId('node').textContent = cluster.node;
  byId('version').textContent = `klatch ${cluster.version}${cluster.draining ? ' · draining' : ''}`;
  byId('view').textContent = cluster.view.toLocaleString('en');
  byId('up').textContent = cluster.members.filter((member) => member.status === 'up').length;
  byId('conversations').textContent = sum('active_conversations');
  byId('turns').textContent = sum('open_turns');
  byId('shard-count').textContent = shards.owners.length.toLocaleString('en');
}

function tellLive(text, isLive) {
  const line = byId('live');
  if (line.textContent !== text) line.textContent = text;
  line.classList.toggle('dead', !isLive);
}

async function watch() {
  byId('charts').replaceChildren(...Object.values(charts).map((chart) => chart.element));
  for (;;) {
    try {
      await look();
      tellLive('live', true);
    } catch (error) {
      console.warn(error);
      tellLive('this node does not answer', false);
    }
    await new Promise((wake) => setTimeout(wake, EVERY_MS));
  }
}

watch();
