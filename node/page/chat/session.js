// Who is logged in: the pair of tokens, renewed before it expires, by one tab at a time.
//
// A refresh token is used once, and a used one that comes again ends the login: tabs take turns under a lock, and each reads
// what the others have kept before it asks. The pair is kept in localStorage, so that a reload and other tabs have it; the page's
// content policy lets no foreign script run that could read it there. A token that was pasted stays in its tab.

import { Failure, failureOf } from './failure.js';

const KEPT = 'klatch.session';
const LOCK = 'klatch.refresh';
/** Renewed so long before its end, in ms: a request may wait in a queue. */
const EARLY_MS = 30_000;
const ATTEMPTS = 5;

let askToLogIn = null;
let asking = null;

/**
 * `ask(why)` shows the dialog, and resolves once [`logIn`] or [`useToken`] has succeeded; `changed()` is told that another tab
 * logged in, out, or as someone else.
 */
export function begin(ask, changed) {
  askToLogIn = ask;
  addEventListener('storage', (event) => {
    const own = sessionStorage.getItem(KEPT);
    if (event.key === KEPT && !own && read(event.oldValue)?.name !== read(event.newValue)?.name) changed();
  });
}

function read(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function kept() {
  return read(sessionStorage.getItem(KEPT) ?? localStorage.getItem(KEPT));
}

function keep(pair, name) {
  const session = {
    access: pair.access_token,
    refresh: pair.refresh_token,
    name,
    expiresAt: Date.now() + pair.expires_in * 1000,
  };
  localStorage.setItem(KEPT, JSON.stringify(session));
}

export function user() {
  return kept()?.name ?? null;
}

async function post(path, body) {
  let response;
  try {
    const headers = { 'content-type': 'application/json' };
    response = await fetch(path, { method: 'POST', headers, body: JSON.stringify(body) });
  } catch {
    throw new Failure({});
  }
  if (!response.ok) throw await failureOf(response);
  return response;
}

export async function logIn(username, password) {
  const response = await post('/auth/login', { username, password });
  sessionStorage.removeItem(KEPT);
  keep(await response.json(), username);
}

/** A token from elsewhere; refused where the service refuses it. */
export async function useToken(access) {
  const response = await fetch('/v1/models', { headers: { authorization: `Bearer ${access}` } });
  if (!response.ok) throw await failureOf(response);
  const claims = claimsOf(access);
  const session = { access, refresh: null, name: claims.sub ?? 'you', expiresAt: (claims.exp ?? Infinity) * 1000 };
  sessionStorage.setItem(KEPT, JSON.stringify(session));
}

/** Only to show a name, and when to ask again: the service judges the token. */
function claimsOf(token) {
  try {
    const text = atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/'));
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(text, (letter) => letter.codePointAt(0))));
  } catch {
    return {};
  }
}

export async function logOut() {
  const refresh = kept()?.refresh;
  localStorage.removeItem(KEPT);
  sessionStorage.removeItem(KEPT);
  if (refresh) await post('/auth/logout', { refresh_token: refresh });
}

/** A token that is good now; waits for the person where only they can give it. */
export async function accessToken(refused = null) {
  const session = kept();
  if (!session) return loggedIn('');
  if (session.access !== refused && session.expiresAt - EARLY_MS > Date.now()) return session.access;
  if (!session.refresh) return session.access === refused ? loggedIn('Your access token has expired.') : session.access;
  return renewed(session.access);
}

async function renewed(old) {
  const session = await locked(async () => {
    const now = kept();
    if (!now || now.access !== old) return now;
    return renew(now);
  });
  return session ? session.access : loggedIn('You were logged out. What you typed is still here.');
}

/** The next pair; null where the login has ended. An answer that was lost is given again within a few seconds. */
async function renew(session) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const response = await post('/auth/refresh', { refresh_token: session.refresh });
      keep(await response.json(), session.name);
      return kept();
    } catch (failure) {
      if (failure.status === 401 || failure.status === 400) {
        localStorage.removeItem(KEPT);
        return null;
      }
      if (!(failure instanceof Failure) || !failure.passes || attempt === ATTEMPTS) throw failure;
      await new Promise((wake) => setTimeout(wake, failure.retryAfterMs ?? 250 * attempt));
    }
  }
}

/** Browsers offer locks to pages over TLS and from this machine; elsewhere tabs are not told apart. */
function locked(work) {
  return navigator.locks ? navigator.locks.request(LOCK, work) : work();
}

async function loggedIn(why) {
  asking ??= askToLogIn(why).finally(() => (asking = null));
  await asking;
  return kept().access;
}
