// The public API, as this page asks for it. Every POST has a key, so that it may be sent again; whatever passes by itself is
// waited for, within bounds.

import { Failure, failureOf } from './failure.js';
import { accessToken } from './session.js';
import { randomKey } from './keys.js';

const ATTEMPTS = 7;
/** A token may be refused, renewed, refused again and given by the person; a service that refuses that too refuses all. */
const TOKENS = 3;
const WAIT_FIRST_MS = 250;
const WAIT_LAST_MS = 4_000;
/** A page of a list is as long as the service allows. */
const PAGE = 100;

/** Told `true` while requests are repeated, and `false` once one is answered. */
export const waiting = { tell: () => {} };

/** One attempt with a good token; a body that is a stream is the caller's to read. */
export async function attempt(method, path, { body, key, signal } = {}) {
  let refused = null;
  for (let n = 1; ; n += 1) {
    const token = await accessToken(refused);
    const headers = { authorization: `Bearer ${token}` };
    const named = path.match(/conv_[0-9a-f]+/)?.[0] ?? body?.conversation;
    // A proxy leads what belongs together to the node that has it in mind.
    if (named) headers['x-conversation-id'] = named;
    if (body !== undefined) headers['content-type'] = 'application/json';
    if (key) headers['idempotency-key'] = key;
    let response;
    try {
      response = await fetch(path, { method, headers, signal, body: body && JSON.stringify(body), cache: 'no-store' });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Failure({});
    }
    if (response.status === 401 && n < TOKENS) {
      refused = token;
      continue;
    }
    if (!response.ok) throw await failureOf(response);
    return response;
  }
}

/** Sent again while that may help. */
export async function call(method, path, options = {}) {
  const key = method === 'POST' ? (options.key ?? randomKey()) : undefined;
  for (let n = 1; ; n += 1) {
    try {
      const response = await attempt(method, path, { ...options, key });
      if (n > 1) waiting.tell(false);
      return await response.json();
    } catch (failure) {
      // A body that broke off is like no answer.
      const again = failure instanceof Failure ? failure.passes : failure instanceof SyntaxError || failure instanceof TypeError;
      if (!again || options.signal?.aborted || n === ATTEMPTS || options.once) {
        if (n > 1) waiting.tell(false);
        throw failure;
      }
      waiting.tell(true);
      await pause(failure.retryAfterMs ?? Math.min(WAIT_FIRST_MS * 2 ** (n - 1), WAIT_LAST_MS));
    }
  }
}

/** So long, or until the browser is online again. */
export function pause(ms) {
  return new Promise((wake) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener('online', done);
      wake();
    };
    const timer = setTimeout(done, ms);
    addEventListener('online', done);
  });
}

const query = (pairs) => new URLSearchParams(Object.entries(pairs).filter(([, value]) => value !== undefined && value !== null));

export const models = async () => (await call('GET', '/v1/models')).data.map((model) => model.id);

export const conversations = {
  list: (after, options) => call('GET', `/v1/conversations?${query({ limit: PAGE, after })}`, options),
  read: (id) => call('GET', `/v1/conversations/${id}`),
  create: (metadata, key) => call('POST', '/v1/conversations', { body: { metadata }, key }),
  /** The whole map is replaced. */
  update: (id, metadata) => call('POST', `/v1/conversations/${id}`, { body: { metadata } }),
  fork: (id, after) => call('POST', `/v1/conversations/${id}/fork`, { body: { after } }),
  async remove(id) {
    try {
      await call('DELETE', `/v1/conversations/${id}`);
    } catch (failure) {
      // The answer to an attempt before was lost.
      if (failure.status !== 404) throw failure;
    }
  },
};

export const items = {
  /** The newest, oldest first. */
  async newest(id, limit) {
    const page = await call('GET', `/v1/conversations/${id}/items?${query({ limit })}`);
    return { items: page.data.reverse(), more: page.has_more };
  },
  async before(id, item, limit) {
    const page = await call('GET', `/v1/conversations/${id}/items?${query({ limit, after: item })}`);
    return { items: page.data.reverse(), more: page.has_more };
  },
  /** All behind an item. */
  async since(id, after) {
    const found = [];
    for (;;) {
      const page = await call('GET', `/v1/conversations/${id}/items?${query({ limit: PAGE, order: 'asc', after })}`);
      found.push(...page.data);
      if (!page.has_more) return found;
      after = page.last_id;
    }
  },
};

export const responses = {
  open: async (conversation, options) => (await call('GET', `/v1/conversations/${conversation}/responses`, options)).data,
  cancel: (id) => call('POST', `/v1/responses/${id}/cancel`),
  inputs: async (id) => (await call('GET', `/v1/responses/${id}/input_items?${query({ limit: PAGE, order: 'asc' })}`)).data,
};
