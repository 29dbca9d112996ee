// The HTTP API as it is documented in docs/http.md; nothing here knows the page.
// The page may lie below a path of a proxy: addresses of the API are those of the page's own folder.

export class ApiError extends Error {
  constructor(message, { status = 0, code = 'offline', retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

/** Where this playground lies, whatever path the server is reached under: "/" or "/kontext/". */
const ROOT = new URL('..', import.meta.url);
const PICTURES = new Set(['picture', 'thumbnail', 'region', 'mask', 'markup', 'url']);

/** An address of the API ("/api/...") as this page reaches it. */
export function located(address) {
  return address.startsWith('/api/') ? ROOT.pathname + address.slice(1) : address;
}

/** The address of the server, with a slash at the end, for programs outside of the page. */
export const serverAddress = () => ROOT.href;

/** JSON of the API; the addresses in it are those that this page can ask for. */
function parse(text) {
  return JSON.parse(text, (key, value) => {
    if (key === 'references' && Array.isArray(value)) return value.map(located);
    return PICTURES.has(key) && typeof value === 'string' ? located(value) : value;
  });
}

async function answered(address, options) {
  try {
    return await fetch(located(address), options);
  } catch {
    throw new ApiError('offline');
  }
}

function failure(answer, told) {
  const retryAfter = Number(answer.headers.get('retry-after')) || null;
  const code = told?.code ?? { 401: 'no_key', 413: 'too_large', 429: 'rate', 503: 'not_ready' }[answer.status];
  return new ApiError(told?.message ?? `HTTP ${answer.status}`, { status: answer.status, code, retryAfter });
}

async function call(method, address, body) {
  const form = body instanceof FormData;
  const answer = await answered(address, {
    method,
    headers: body && !form ? { 'content-type': 'application/json' } : {},
    body: form ? body : body && JSON.stringify(body),
  });
  const text = await answer.text();
  let told = null;
  try {
    told = text && parse(text);
  } catch {
    // a proxy between us may answer with a page of its own
  }
  if (answer.ok) return told;
  throw failure(answer, told);
}

/** A picture of the API as a Blob. */
async function file(address) {
  const answer = await answered(address, {});
  if (!answer.ok) throw failure(answer, null);
  return answer.blob();
}

function upload(address, field, file, name) {
  const form = new FormData();
  form.append(field, file, name ?? file.name ?? 'picture.png');
  return call('POST', address, form);
}

const at = (session, ...rest) => ['/api/sessions', session, ...rest].map((part, i) => (i ? encodeURIComponent(part) : part)).join('/');

export const api = {
  capabilities: () => call('GET', '/api/capabilities'),
  examples: () => call('GET', '/api/examples'),
  login: (key) => call('POST', '/api/login', { key }),
  logout: () => call('POST', '/api/logout'),
  file,
  picture: (file, name) => upload('/api/pictures', 'picture', file, name),
  pictureAt: (url) => call('POST', '/api/pictures', { url }),
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
  restore: (file) => upload('/api/sessions/import', 'file', file),
  exportAddress: (id) => at(id, 'export'),
  eventsAddress: (id) => at(id, 'events'),
};

export const EVENTS = ['queued', 'step', 'done', 'failed', 'changed', 'gone'];

/**
 * Follow the events of a session. `hear(name, data)` for each; `line(open)` when the connection comes or goes.
 * The browser connects again by itself, except after an HTTP error, where we do. Returns a function that stops it.
 */
export function follow(id, hear, line) {
  let source;
  let timer;
  const open = () => {
    source = new EventSource(located(api.eventsAddress(id)));
    source.onopen = () => line(true);
    source.onerror = () => {
      line(false);
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, 2000);
    };
    for (const name of EVENTS) source.addEventListener(name, (event) => hear(name, parse(event.data)));
  };
  open();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}
