// The HTTP API as it is documented in docs/http.md; nothing here knows the page.
// Addresses are relative to the page, which may lie below a path of a proxy.

export class ApiError extends Error {
  constructor(message, { status = 0, code = 'offline', retryAfter = null } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

async function call(method, address, body) {
  const form = body instanceof FormData;
  let answer;
  try {
    answer = await fetch(address, {
      method,
      headers: body && !form ? { 'content-type': 'application/json' } : {},
      body: form ? body : body && JSON.stringify(body),
    });
  } catch {
    throw new ApiError('offline');
  }
  const text = await answer.text();
  let told = null;
  try {
    told = text && JSON.parse(text);
  } catch {
    // a proxy between us may answer with a page of its own
  }
  if (answer.ok) return told;
  const retryAfter = Number(answer.headers.get('retry-after')) || null;
  const code = told?.code ?? { 401: 'no_key', 413: 'too_large', 429: 'rate', 503: 'not_ready' }[answer.status];
  throw new ApiError(told?.message ?? `HTTP ${answer.status}`, { status: answer.status, code, retryAfter });
}

function upload(address, field, file, name) {
  const form = new FormData();
  form.append(field, file, name ?? file.name ?? 'picture.png');
  return call('POST', address, form);
}

const at = (session, ...rest) => ['api/sessions', session, ...rest].map((part, i) => (i ? encodeURIComponent(part) : part)).join('/');

export const api = {
  capabilities: () => call('GET', 'api/capabilities'),
  examples: () => call('GET', 'api/examples'),
  login: (key) => call('POST', 'api/login', { key }),
  picture: (file, name) => upload('api/pictures', 'picture', file, name),
  pictureAt: (url) => call('POST', 'api/pictures', { url }),
  prefill: (what) => call('POST', 'api/prefill', what),
  sessions: () => call('GET', 'api/sessions'),
  create: (what) => call('POST', 'api/sessions', what),
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
  restore: (file) => upload('api/sessions/import', 'file', file),
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
    source = new EventSource(api.eventsAddress(id));
    source.onopen = () => line(true);
    source.onerror = () => {
      line(false);
      if (source.readyState === EventSource.CLOSED) timer = setTimeout(open, 2000);
    };
    for (const name of EVENTS) source.addEventListener(name, (event) => hear(name, JSON.parse(event.data)));
  };
  open();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}
