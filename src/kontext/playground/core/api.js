// Client for the HTTP API documented in docs/http.md; independent of the page's state.
// The page may be served below a proxy path, so API addresses are resolved relative to the page's folder.

export class ApiError extends Error {
  constructor(message, { status = 0, code = 'offline', retryAfter = null } = {}) {
    super(message);
    this.status = status; // of the HTTP response; 0 without one
    this.code = code;
    this.retryAfter = retryAfter; // seconds
  }
}

/** Root of this playground, whatever path the server is reached under: "/" or "/kontext/". */
const ROOT = new URL('..', import.meta.url);
const PICTURES = new Set(['picture', 'thumbnail', 'region', 'mask', 'markup', 'url']);

/** Resolve an API address ("/api/...") as this page reaches it. */
export function located(address) {
  return address.startsWith('/api/') ? ROOT.pathname + address.slice(1) : address;
}

/** Address of the server with a trailing slash, for programs outside the page. */
export const serverAddress = () => ROOT.href;

/** Parse API JSON; the addresses in it are resolved for this page. */
function parse(text) {
  return JSON.parse(text, (key, value) => {
    if (key === 'references' && Array.isArray(value)) return value.map(located);
    return PICTURES.has(key) && typeof value === 'string' ? located(value) : value;
  });
}

async function request(address, options) {
  try {
    return await fetch(located(address), options);
  } catch {
    throw new ApiError('offline');
  }
}

function failure(response, data) {
  const retryAfter = Number(response.headers.get('retry-after')) || null;
  const code = data?.code ?? { 401: 'no_key', 413: 'too_large', 429: 'rate', 503: 'not_ready' }[response.status];
  return new ApiError(data?.message ?? `HTTP ${response.status}`, { status: response.status, code, retryAfter });
}

async function call(method, address, body) {
  const form = body instanceof FormData;
  const response = await request(address, {
    method,
    headers: body && !form ? { 'content-type': 'application/json' } : {},
    body: form ? body : body && JSON.stringify(body),
  });
  const text = await response.text();
  let data = null;
  try {
    data = text && parse(text);
  } catch {
    // a proxy in between may answer with its own error page
  }
  if (response.ok) return data;
  throw failure(response, data);
}

/** Fetch a picture from the API as a Blob. */
async function file(address) {
  const response = await request(address, {});
  if (!response.ok) throw failure(response, null);
  return response.blob();
}

function upload(address, field, blob, name) {
  const form = new FormData();
  form.append(field, blob, name ?? blob.name ?? 'picture.png');
  return call('POST', address, form);
}

const at = (session, ...rest) => ['/api/sessions', session, ...rest].map((part, i) => (i ? encodeURIComponent(part) : part)).join('/');

export const api = {
  capabilities: () => call('GET', '/api/capabilities'),
  examples: () => call('GET', '/api/examples'),
  login: (key) => call('POST', '/api/login', { key }),
  logout: () => call('POST', '/api/logout'),
  file,
  picture: (blob, name) => upload('/api/pictures', 'picture', blob, name),
  pictureAt: (url) => call('POST', '/api/pictures', { url }),
  tokens: (prompt, model) => call('POST', '/api/tokens', { prompt, model }),
  prefill: (what) => call('POST', '/api/prefill', what),
  sessions: () => call('GET', '/api/sessions'),
  create: (what) => call('POST', '/api/sessions', what),
  session: (id) => call('GET', at(id)),
  renameSession: (id, name) => call('PATCH', at(id), { name }),
  deleteSession: (id) => call('DELETE', at(id)),
  head: (id, turn) => call('POST', at(id, 'head'), { turn }),
  renameTurn: (id, turn, name) => call('PATCH', at(id, 'turns', turn), { name }),
  deleteTurn: (id, turn) => call('DELETE', at(id, 'turns', turn)),
  edit: (id, body) => call('POST', at(id, 'edits'), body),
  variants: (id, turn, count) => call('POST', at(id, 'turns', turn, 'variants'), { count }),
  job: (job) => call('GET', `api/jobs/${encodeURIComponent(job)}`),
  cancel: (job) => call('POST', `api/jobs/${encodeURIComponent(job)}/cancel`),
  retry: (job) => call('POST', `api/jobs/${encodeURIComponent(job)}/retry`),
  restore: (blob) => upload('/api/sessions/import', 'file', blob),
  exportAddress: (id) => at(id, 'export'),
  eventsAddress: (id) => at(id, 'events'),
};

export const EVENTS = ['queued', 'step', 'done', 'failed', 'changed', 'gone'];

/**
 * Follow the events of a session. `onEvent(name, data)` is called for each event, `onConnection(open)` when the
 * connection opens or drops. The browser reconnects by itself, except after an HTTP error, which is handled here.
 * Returns a function that stops following.
 */
export function follow(id, onEvent, onConnection) {
  let source;
  let timer;
  const open = () => {
    source = new EventSource(located(api.eventsAddress(id)));
    source.onopen = () => onConnection(true);
    source.onerror = () => {
      onConnection(false);
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, 2000);
    };
    for (const name of EVENTS) source.addEventListener(name, (event) => onEvent(name, parse(event.data)));
  };
  open();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}
