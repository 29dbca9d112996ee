// The page's state as plain data, and all its transitions as pure functions.
import { EMPTY, isEmpty } from './pointing.js';
import { children, isActive, node, path, subtree } from './tree.js';

export { isActive };

/** Options of an edit that the page offers besides size, seed, count and lock; null: the default. */
export const OPTIONS = [
  'steps',
  'guidance',
  'negative_prompt',
  'true_guidance',
  'nag',
  'guidance_steps',
  'sampler',
  'strength',
  'expand',
  'reference_layout',
];
const OF_A_PICTURE = ['strength', 'expand'];
/** @type {Record<string, any>} */
export const SETTINGS = { size: 'match', seed: null, count: 1, lock: true, expand_prompt: false, ...optionsOf({}) };
const STROKES_KEPT = 60; // undo steps per turn
export const DRAFT = { prompt: '', references: [] };

export function initial() {
  return {
    ready: false, // the translations are loaded
    capabilities: null,
    examples: [],
    online: true,
    login: false,
    sending: false, // an edit request is in flight
    doubt: null, // a prompt without a picture that sounds like an edit
    session: null, // {id, name, revision, turns: {id: turn}}; `eventRevision` of a turn: revision of the event that brought it
    here: null, // id of the shown turn or job; the next edit starts from it
    ahead: {}, // turn -> the child visited last, for redo
    jobs: {}, // id -> job of the API, with `preview`, `message`, and `left`: estimated seconds remaining
    arriving: null, // {url, name} of a picture being uploaded
    prefill: null, // milliseconds
    draft: DRAFT,
    tokens: null, // {prompt, count}: length of a prompt near the model's limit
    pointing: {}, // turn -> {box, mask, markup}, in pixels of its picture
    strokes: {}, // turn -> {past, future}: undo and redo history of its pointing
    widths: {}, // tool -> stroke width as a fraction of the shorter side
    settings: SETTINGS,
    tool: 'move',
    view: { scale: 1, x: 0, y: 0 },
    region: false,
    before: false, // show the previous picture while a key or the mouse is held
    compare: null, // {a, b, mode}
    panel: null, // gallery, help or details
    sessions: null, // for the gallery
    notices: [],
    said: '',
  };
}

/**
 * Apply a session response of the API. The same session keeps the shown turn; a new one starts at its head. Responses
 * may arrive out of order: one that is older than the known state changes nothing.
 */
export function withSession(state, response) {
  const same = state.session?.id === response.id;
  if (same && response.revision < state.session.revision) return state;
  const later = same ? Object.values(state.session.turns).filter((turn) => turn.eventRevision > response.revision) : [];
  const turns = Object.fromEntries([...response.turns, ...later].map((turn) => [turn.id, turn]));
  const pending = same ? Object.values(state.jobs).filter((job) => job.state !== 'done') : []; // includes one being sent
  const jobs = Object.fromEntries(pending.map((job) => [job.id, job]));
  for (const job of response.jobs)
    if (!turns[job.id]) jobs[job.id] = { ...job, ...pick(jobs[job.id], ['preview', 'step', 'since', 'left']) };
  const { id, name, revision } = response;
  const next = { ...state, session: { id, name, revision, turns }, jobs, arriving: null };
  if (same && node(next, state.here)) return next;
  const head = response.head ?? response.jobs[0]?.id ?? null;
  if (same) return select(next, head);
  return select({ ...next, ahead: {}, compare: null, view: initial().view, tool: 'move' }, head);
}

/** Show an edit that is being sent immediately, as a local job. */
export function withSending(state, { id, parent, prompt, created }) {
  const job = { id, parent, prompt, created, session: state.session.id, state: 'sending', step: 0, seed: null };
  return select({ ...state, jobs: { ...state.jobs, [id]: job }, tool: 'move', compare: null, region: false }, id);
}

/**
 * Add accepted jobs, replacing `sending` if given, and select the first that is at work or done, else what `leave` selects.
 * Their events may have arrived before this response: the result is the same in either order.
 */
export function withJobs(state, jobs, sending = null) {
  const { [sending]: sent, ...merged } = state.jobs;
  for (const job of jobs) {
    if (merged[job.id]?.state === 'cancelled') delete merged[job.id];
    else if (!state.session.turns[job.id]) merged[job.id] = { ...job, ...merged[job.id] };
  }
  const next = { ...state, jobs: merged };
  if (sent && state.here !== sending) return next; // another turn was selected meanwhile
  const first = jobs.find((job) => state.session.turns[job.id] || (merged[job.id] && isActive(merged[job.id])));
  if (first) return select(next, first.id);
  return jobs.length ? leave(next, jobs[0]) : next;
}

/** Apply one server-sent event received at `now` (ms); `changed` and `gone` need the network and are handled elsewhere. */
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
    const turns = { ...state.session.turns, [data.turn.id]: { ...data.turn, eventRevision: data.revision } };
    return { ...state, jobs, session: { ...state.session, turns } };
  }
  if (name === 'failed') {
    if (state.session.turns[old.id]) return state;
    if (data.state === 'cancelled') return old.prompt === undefined ? change({ state: 'cancelled' }) : withoutJob(state, old.id);
    const next = change({ state: data.state, message: data.message });
    return state.here === old.id ? leave(next, old) : next;
  }
  return state;
}

/** Remove a job (canceled, or a dismissed failure). */
export function withoutJob(state, id) {
  const job = state.jobs[id];
  if (!job) return state;
  const { [id]: _, ...jobs } = state.jobs;
  const next = { ...state, jobs };
  return state.here === id ? leave(next, job) : next;
}

/** Leave a failed job: select an active sibling, else the turn it started from. */
function leave(state, job) {
  if (job.state === 'sending') return select(state, job.parent ?? null); // rejected: back to where it was written
  const other = children(state, job.parent).find((sibling) => sibling.job && isActive(sibling.job));
  return select(state, other?.id ?? job.parent ?? null);
}

/** Put a prompt into the draft. If a failed edit is shown, go back to where it started. */
export function withPrompt(state, prompt) {
  const job = node(state, state.here)?.job;
  const next = job && !isActive(job) ? select(state, job.parent ?? null) : state;
  return { ...next, draft: { ...next.draft, prompt } };
}

/** Show a turn; redo leads back to it. */
export function select(state, id) {
  const ancestors = path(state, id);
  const ahead = { ...state.ahead };
  ancestors.slice(1).forEach((ancestor, index) => (ahead[ancestors[index].id] = ancestor.id));
  return { ...state, here: id, ahead };
}

export function withoutTurn(state, id) {
  const deleted = subtree(state, id);
  const parent = node(state, id).parent;
  const turns = Object.fromEntries(Object.entries(state.session.turns).filter(([key]) => !deleted.has(key)));
  const next = { ...state, session: { ...state.session, turns } };
  return deleted.has(state.here) ? select(next, parent) : next;
}

/** Change the pointing of a turn; with `step`, `withStrokesBack` can restore the previous one. */
export function withPointing(state, turn, change, step = true) {
  const before = { ...EMPTY, ...state.pointing[turn] };
  const { past = [] } = state.strokes[turn] ?? {};
  const strokes = step ? { ...state.strokes, [turn]: { past: [...past, before].slice(-STROKES_KEPT), future: [] } } : state.strokes;
  return { ...state, strokes, pointing: replaced(state.pointing, turn, { ...before, ...change }) };
}

/** Undo (`by` -1) or redo (1) one pointing step of a turn. */
export function withStrokesBack(state, turn, by) {
  const { past = [], future = [] } = state.strokes[turn] ?? {};
  const next = by < 0 ? past.at(-1) : future.at(-1);
  if (!next) return state;
  const now = { ...EMPTY, ...state.pointing[turn] };
  const moved = by < 0 ? { past: past.slice(0, -1), future: [...future, now] } : { past: [...past, now], future: future.slice(0, -1) };
  return { ...state, strokes: { ...state.strokes, [turn]: moved }, pointing: replaced(state.pointing, turn, next) };
}

function replaced(all, turn, pointing) {
  const { [turn]: _, ...others } = all;
  return isEmpty(pointing) ? others : { ...others, [turn]: pointing };
}

export const ROLES = ['person', 'style', 'garment'];

export function addReference(state, reference, limit) {
  const references = [...state.draft.references, reference].slice(0, limit);
  return { ...state, draft: { ...state.draft, references } };
}

export function changeReference(state, index, change) {
  const references = state.draft.references
    .map((reference, place) => (place === index ? change && { ...reference, ...change } : reference))
    .filter(Boolean);
  return { ...state, draft: { ...state.draft, references } };
}

/** Choose one of the models of the server; an unknown name chooses the first. Limits and suggestions follow it. */
export function withModel(state, name) {
  const { models = [], limits } = state.capabilities ?? {};
  const model = models.find((one) => one.name === name) ?? models[0];
  if (!model) return state;
  return {
    ...state,
    capabilities: { ...state.capabilities, model, limits: { ...limits, prompt_tokens: model.prompt_tokens } },
  };
}

/** Name of the chosen model if the server has several; null if there is no choice. */
export function chosenModel({ capabilities }) {
  return capabilities?.models?.length > 1 ? capabilities.model.name : null;
}

/** Body of an edit request from the draft and settings; masks and markup are already uploaded. */
export function editBody(state, parent, pointers) {
  const { prompt, references } = state.draft;
  const { size, seed, count, lock } = state.settings;
  const body = { prompt: prompt.trim(), count, ...pointers };
  if (parent) Object.assign(body, { parent, references: references.map((reference) => reference.picture), lock, size });
  else body.size = size === 'match' ? '1:1' : size;
  for (const [key, value] of Object.entries({ seed, ...optionsOf(state.settings) }))
    if (value !== null && (parent || !OF_A_PICTURE.includes(key))) body[key] = value;
  const model = chosenModel(state);
  if (model) body.model = model;
  if (state.settings.expand_prompt && state.capabilities?.features.expand_prompt) body.expand_prompt = true;
  return body;
}

/**
 * The options among the settings of a turn or of the page.
 * @returns {Record<string, any>}
 */
export function optionsOf(settings) {
  return Object.fromEntries(OPTIONS.map((name) => [name, settings[name] ?? null]));
}

function pick(object, keys) {
  return Object.fromEntries(keys.filter((key) => object?.[key] !== undefined).map((key) => [key, object[key]]));
}
