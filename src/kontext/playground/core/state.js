// What the page knows, as plain data, and every way in which it changes: pure functions from state to state.
import { children, isActive, node, path, subtree } from './tree.js';

export { isActive };

export const SETTINGS = { size: 'match', seed: null, count: 1, steps: null, guidance: null, lock: true };
export const DRAFT = { prompt: '', references: [] };

export function initial() {
  return {
    ready: false, // the words are loaded
    capabilities: null,
    examples: [],
    online: true,
    login: false,
    session: null, // {id, name, revision, turns: {id: turn}}; `heard`: the revision of a turn that an event told of
    here: null, // the turn or job that is looked at; the next edit starts from it
    ahead: {}, // turn -> the child visited last, for redo
    jobs: {}, // id -> job of the API, with `preview`, `message`, and `left`: seconds to go at the pace so far
    arriving: null, // {url, name} of a picture that is being sent
    prefill: null, // milliseconds
    draft: DRAFT,
    pointing: {}, // turn -> {box, mask, markup}, in pixels of its picture
    settings: SETTINGS,
    tool: 'move',
    view: { scale: 1, x: 0, y: 0 },
    region: false,
    before: false, // the picture before is shown, while something is held
    compare: null, // {a, b, mode}
    panel: null, // gallery, help or details
    sessions: null, // for the gallery
    notices: [],
    said: '',
  };
}

/**
 * A session as the API tells it. The same session again keeps the place; a new one starts at its head. Answers
 * may overtake each other: an older one than what is known changes nothing.
 */
export function withSession(state, told) {
  const same = state.session?.id === told.id;
  if (same && told.revision < state.session.revision) return state;
  const later = same ? Object.values(state.session.turns).filter((turn) => turn.heard > told.revision) : [];
  const turns = Object.fromEntries([...told.turns, ...later].map((turn) => [turn.id, turn]));
  const kept = same ? Object.values(state.jobs).filter((job) => job.state !== 'done') : [];
  const jobs = Object.fromEntries(kept.map((job) => [job.id, job]));
  for (const job of told.jobs) jobs[job.id] = { ...job, ...pick(jobs[job.id], ['preview', 'step', 'since', 'left']) };
  const { id, name, revision } = told;
  const next = { ...state, session: { id, name, revision, turns }, jobs, arriving: null };
  if (same && node(next, state.here)) return next;
  const head = told.head ?? told.jobs[0]?.id ?? null;
  if (same) return select(next, head);
  return select({ ...next, ahead: {}, compare: null, view: initial().view, tool: 'move' }, head);
}

/** Jobs just accepted; events about them may have come before. */
export function withJobs(state, jobs) {
  const merged = { ...state.jobs };
  for (const job of jobs) {
    if (!state.session.turns[job.id]) merged[job.id] = { ...job, ...merged[job.id] };
  }
  const next = { ...state, jobs: merged };
  const first = jobs.find((job) => !merged[job.id] || isActive(merged[job.id]));
  return first ? select(next, first.id) : next;
}

/** One server-sent event, heard at `now` (ms); `changed` and `gone` need the network and are not for here. */
export function withEvent(state, name, data, now = 0) {
  if (!state.session) return state;
  const old = state.jobs[data.job] ?? { id: data.job, session: state.session.id };
  const change = (job) => ({ ...state, jobs: { ...state.jobs, [old.id]: { ...old, ...job } } });
  if (name === 'queued') return change({ state: 'queued', position: data.position, since: null, left: null });
  if (name === 'step') {
    const { step, steps } = data;
    const since = old.since ?? { step, now };
    const left = step > since.step ? ((now - since.now) / (step - since.step) / 1000) * (steps - step) : null;
    return change({ state: 'running', position: 0, step, steps, since, left, preview: data.preview ?? old.preview });
  }
  if (name === 'done') {
    const { [old.id]: _, ...jobs } = state.jobs;
    const turns = { ...state.session.turns, [data.turn.id]: { ...data.turn, heard: data.revision } };
    return { ...state, jobs, session: { ...state.session, turns } };
  }
  if (name === 'failed') {
    if (state.session.turns[old.id]) return state;
    if (data.state === 'cancelled') return withoutJob(state, old.id);
    const next = change({ state: data.state, message: data.message });
    return state.here === old.id ? leave(next, old) : next;
  }
  return state;
}

/** Forget a job (cancelled, or a failure that was read). */
export function withoutJob(state, id) {
  const job = state.jobs[id];
  if (!job) return state;
  const { [id]: _, ...jobs } = state.jobs;
  const next = { ...state, jobs };
  return state.here === id ? leave(next, job) : next;
}

/** From a job that came to nothing: to a sibling still in work, else back to the turn it started from. */
function leave(state, job) {
  const other = children(state, job.parent).find((one) => one.job && isActive(one.job));
  return select(state, other?.id ?? job.parent ?? null);
}

/** Look at a turn; redo will lead back to it. */
export function select(state, id) {
  const way = path(state, id);
  const ahead = { ...state.ahead };
  way.slice(1).forEach((one, index) => (ahead[way[index].id] = one.id));
  return { ...state, here: id, ahead };
}

export function withoutTurn(state, id) {
  const gone = subtree(state, id);
  const parent = node(state, id).parent;
  const turns = Object.fromEntries(Object.entries(state.session.turns).filter(([key]) => !gone.has(key)));
  const next = { ...state, session: { ...state.session, turns } };
  return gone.has(state.here) ? select(next, parent) : next;
}

export const ROLES = ['person', 'style', 'garment'];

export function addReference(state, reference, limit) {
  const references = [...state.draft.references, reference].slice(0, limit);
  return { ...state, draft: { ...state.draft, references } };
}

export function changeReference(state, index, change) {
  const references = state.draft.references
    .map((one, place) => (place === index ? change && { ...one, ...change } : one))
    .filter(Boolean);
  return { ...state, draft: { ...state.draft, references } };
}

/** The body of an edit request, from the draft and the settings; masks and markups are uploaded before. */
export function editBody(state, parent, pointers) {
  const { prompt, references } = state.draft;
  const { size, seed, count, steps, guidance, lock } = state.settings;
  const body = { prompt: prompt.trim(), count, ...pointers };
  if (parent) Object.assign(body, { parent, references: references.map((one) => one.picture), lock, size });
  else body.size = size === 'match' ? '1:1' : size;
  for (const [key, value] of Object.entries({ seed, steps, guidance })) if (value !== null) body[key] = value;
  return body;
}

function pick(object, keys) {
  return Object.fromEntries(keys.filter((key) => object?.[key] !== undefined).map((key) => [key, object[key]]));
}
