// What went wrong, in plain words, with the id by which an operator finds it in the logs.

/** A request that had no good answer. `status` is 0 where there was no answer at all. */
export class Failure extends Error {
  constructor({ status = 0, code = null, message = '', requestId = null, retryAfterMs = null }) {
    super(message);
    Object.assign(this, { status, code, requestId, retryAfterMs });
  }

  /** Whether the same request, under the same key, may have a better answer soon. */
  get passes() {
    return this.status === 0 || this.status === 408 || this.status === 429 || this.status >= 500;
  }
}

export async function failureOf(response) {
  const { error = {} } = await response.json().catch(() => ({}));
  const after = response.headers.get('retry-after-ms');
  return new Failure({
    status: response.status,
    code: error.code,
    message: error.message ?? '',
    requestId: response.headers.get('x-request-id'),
    retryAfterMs: after === null ? null : Number(after),
  });
}

const BY_CODE = {
  conversation_locked: 'Another answer is being written in this conversation.',
  model_not_found: 'This model is not offered any more. Choose another one.',
  body_too_large: 'This message is too long.',
};
const BY_STATUS = {
  0: 'There is no connection to the server.',
  401: 'You are not logged in.',
  403: 'You may not do this.',
  404: 'This is not there any more.',
  413: 'This message is too long.',
  429: 'Too much at once. Wait a moment.',
  502: 'The service is not there at this moment.',
  503: 'The service is not there at this moment.',
  504: 'The service took too long.',
};

/** A sentence for the person before the page. */
export function inWords(error) {
  if (!(error instanceof Failure)) return `Something in this page failed: ${error?.message ?? error}`;
  const known = BY_CODE[error.code] ?? BY_STATUS[error.status];
  const said = known ?? (error.status >= 500 ? 'The service failed.' : `The service refused this: ${error.message}.`);
  return error.requestId ? `${said} (Request ${error.requestId})` : said;
}
