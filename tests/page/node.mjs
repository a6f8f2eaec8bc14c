// The nodes under test, as `with-node --nodes 3` names them in the environment; a variable that is missing ends the run. A node that is
// killed here is started again as it was, from what the system knows of its process.

import { spawn } from 'node:child_process';
import { readFileSync, readlinkSync } from 'node:fs';

function required(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} says which node to test, and is not set: run this by with-node --nodes 3`);
  return value;
}

export const url = required('KLATCH_URL').replace(/\/$/, '');
export const opsUrl = required('KLATCH_OPS_URL');
export const token = required('KLATCH_TOKEN');
export const nodes = JSON.parse(required('KLATCH_NODES'));

/** Of the account that the harness makes. */
export const account = { name: 'ann', password: 'correct horse battery staple' };

/** Every wait of these tests has this end: a failover takes seconds, a node that is stuck does not answer at all. */
export const PATIENCE_MS = 40_000;
const POLL_MS = 25;

/** Asked again and again until it is so. */
export async function until(what, is) {
  const begun = Date.now();
  for (;;) {
    const found = await is().catch((error) => (Date.now() - begun > PATIENCE_MS ? Promise.reject(error) : null));
    if (found) return found;
    if (Date.now() - begun > PATIENCE_MS) throw new Error(`waited in vain until ${what}`);
    await new Promise((wake) => setTimeout(wake, POLL_MS));
  }
}

/** The API, at one node or wherever the URL leads. */
export async function api(method, path, body, at = nodes[0].url) {
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  const response = await fetch(`${at}${path}`, { method, headers, body: body && JSON.stringify(body) });
  return { status: response.status, body: await response.json() };
}

async function metric(node, name) {
  const text = await (await fetch(`${node.opsUrl}/metrics`)).text();
  const line = text.split('\n').find((one) => one.startsWith(`${name} `));
  return line ? Number(line.split(' ')[1]) : 0;
}

/** The node that makes the only answer that is under way. */
export function owner() {
  return until('one node has an open turn', async () => {
    const { members } = await (await fetch(`${alive().opsUrl}/cluster`)).json();
    const having = members.filter((member) => member.load?.open_turns === 1);
    return having.length === 1 && nodes.find((node) => node.name === having[0].node);
  });
}

/** The node that holds the only stream that is read. */
export function edge() {
  return until('one node tells a stream', async () => {
    const open = await Promise.all(nodes.map((node) => metric(node, 'klatch_http_streams_open')));
    return open.filter((count) => count > 0).length === 1 && nodes[open.findIndex((count) => count > 0)];
  });
}

const alive = () => nodes.find((node) => !node.killed);

/** SIGKILL; the function that starts it again, and waits until the others have it in their view. The end of the test calls it too. */
export function kill(node, test) {
  const read = (name) => readFileSync(`/proc/${node.process}/${name}`, 'utf8').split('\0').slice(0, -1);
  const [program, ...args] = read('cmdline');
  const env = Object.fromEntries(read('environ').map((pair) => [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]));
  const cwd = readlinkSync(`/proc/${node.process}/cwd`);
  process.kill(node.process, 'SIGKILL');
  node.killed = true;
  const restart = async () => {
    const child = spawn(program, args, { env, cwd, stdio: 'ignore' });
    process.on('exit', () => child.kill('SIGKILL'));
    // The test's end does not wait for it.
    child.unref();
    node.process = child.pid;
    await until(`${node.name} serves`, async () => (await fetch(`${node.opsUrl}/readyz`)).ok);
    node.killed = false;
    await until('the nodes agree', async () => {
      const views = await Promise.all(nodes.map(async (one) => (await fetch(`${one.opsUrl}/cluster`)).json()));
      return views.every((view) => view.members.length === nodes.length && view.members.every((member) => member.status === 'up' && member.load));
    });
  };
  let restarted;
  const once = () => (restarted ??= restart());
  test.after(once);
  return once;
}
