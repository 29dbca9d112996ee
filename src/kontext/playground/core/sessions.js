// Opening, following and closing sessions.
import { api, follow } from './api.js';
import { focusFirst } from './focus.js';
import { keep, recall } from './memory.js';
import { attempt, dismissWhere, fail, notify, say } from './notices.js';
import { DRAFT, initial, isActive, withEvent, withJobs, withModel, withPrompt, withSession, withoutJob } from './state.js';
import { store } from './store.js';
import { duration, language, percent, t } from './text.js';
import { base } from './tree.js';
import { sentences, warningsFor } from './words.js';

const DRAFTS_KEPT = 12;
let stop = () => {};
let offlineNotice = null;
let loading = null; // {id, revision}: the session being reloaded and its newest known revision
const warned = new Set(); // each warning is shown once per session; the turn's details always list it

export async function boot() {
  const [capabilities, response] = await Promise.all([
    api.capabilities().catch((error) => (fail(error, () => location.reload()), null)),
    api.examples().catch((error) => ({ examples: [], locked: error.code === 'no_key' })),
  ]);
  store.set((state) =>
    withModel({ ...state, capabilities, examples: response.examples, login: response.locked ?? false }, recall('model', null)),
  );
  if (capabilities && !capabilities.ready) waitForModel();
  if (!response.locked) await followAddress();
}

/** Open the session in the page's address. */
export async function followAddress() {
  const wanted = location.hash.slice(1);
  if (wanted && wanted !== store.state.session?.id) await openSession(wanted);
}

async function waitForModel() {
  while (!store.state.capabilities?.ready) {
    const { trouble } = store.state.capabilities;
    if (trouble) return notify({ kind: 'error', title: t('error.trouble'), text: sentences(trouble, t('error.trouble.step')) });
    await new Promise((done) => setTimeout(done, 500));
    const capabilities = await api.capabilities().catch(() => null);
    if (capabilities) store.set((state) => withModel({ ...state, capabilities }, recall('model', null)));
  }
  const response = await api.examples().catch(() => null); // their prompts depend on the loaded model
  if (response) store.set({ examples: response.examples });
  return null;
}

/** Show a session and follow its events. */
export function enter(response) {
  leaveQuietly();
  if (store.state.session?.id !== response.id) dismissWhere((notice) => notice.kind === 'error');
  const saved = recall('drafts', {})[response.id] ?? {};
  store.set((state) => ({
    ...withSession(state, response),
    draft: saved.draft ?? state.draft,
    pointing: saved.pointing ?? {},
    settings: { ...state.settings, size: state.session?.id === response.id ? state.settings.size : 'match' },
    panel: null,
    prefill: null,
    region: false,
  }));
  history.replaceState(null, '', `#${response.id}`);
  stop = follow(response.id, onEvent, onConnection);
}

function leaveQuietly() {
  stop();
  stop = () => {};
  clearTimeout(offlineNotice);
}

/** Go back to the start page; all sessions stay in the gallery. */
export function leave() {
  leaveQuietly();
  dismissWhere((notice) => notice.kind === 'error' && !notice.offline);
  const { capabilities, examples, settings, notices, panel, sessions, online, login } = store.state;
  store.set({ ...initial(), ready: true, capabilities, examples, settings, notices, panel, sessions, online, login });
  history.replaceState(null, '', location.pathname);
}

export function openSession(id) {
  return attempt(async () => enter(await api.session(id)));
}

/** Reload the session, and again if a newer revision is announced meanwhile; the shown turn stays. */
export async function reload(revision = 0) {
  const id = store.state.session?.id;
  if (!id) return;
  if (loading?.id === id) {
    loading.revision = Math.max(loading.revision, revision);
    return;
  }
  const mine = (loading = { id, revision });
  let response;
  let requested;
  do {
    requested = mine.revision;
    response = await api.session(id).catch(() => null);
  } while (loading === mine && mine.revision > requested);
  if (loading !== mine) return;
  loading = null;
  if (!response || store.state.session?.id !== id) return;
  store.set((state) => withSession(state, response));
  const known = new Set([...response.jobs, ...response.turns].map((entry) => entry.id));
  Object.values(store.state.jobs)
    .filter((job) => isActive(job) && job.state !== 'sending' && !known.has(job.id))
    .forEach(lookUp);
}

/** Look up how a job ended whose terminal event was missed. */
async function lookUp({ id }) {
  const job = await api.job(id).catch((error) => (error.status === 404 ? { state: 'cancelled' } : null));
  if (job && !isActive(job) && job.state !== 'done') onEvent('failed', { job: id, state: job.state, message: job.error });
}

function onEvent(name, data) {
  if (name === 'gone') {
    leave();
    return notify({ kind: 'error', title: t('error.gone'), text: t('error.gone.step') });
  }
  const { session, jobs } = store.state;
  if (!session) return; // an event of a session that was just left
  if (name === 'changed') return data.revision > session.revision ? reload(data.revision) : null;
  if (name === 'queued' && !jobs[data.job]) setTimeout(() => store.state.jobs[data.job]?.prompt ?? reload(), 400);
  if (name === 'done' && data.turn.picture) new Image().src = data.turn.picture; // load it before the thumbnails
  store.set((state) => withEvent(state, name, data, performance.now()));
  if (name === 'done' || name === 'failed') dismissWhere((notice) => notice.cause === 'queue_full'); // the queue has room again
  if (name === 'done') finished(data);
  else if (name === 'failed' && data.state !== 'cancelled') failed(data);
  else if (name === 'failed') say(t('said.cancelled'));
  else if (name === 'queued' && data.position > 1) say(t('said.queued', { n: data.position }));
  else if (name === 'step' && data.step === 1) say(t('said.started', { n: data.steps }));
}

function finished({ turn }) {
  const { total } = turn.facts.seconds ?? {};
  const changed = turn.facts.changed_fraction;
  say(
    [
      t('said.done', { prompt: turn.prompt }),
      total ? duration(total) : '',
      turn.region && changed !== undefined ? t('changed', { share: percent(changed) }) : '',
    ].join(' '),
  );
  const first = store.state.session.turns[turn.parent]?.kind === 'source';
  for (const warning of warningsFor(turn.facts.warnings, first)) {
    const key = `${store.state.session.id} ${warning}`;
    if (!warned.has(key)) notify({ kind: 'warning', title: t('warning'), text: sentences(warning) });
    warned.add(key);
  }
}

/** Show why an edit failed. The event may arrive before the response to the request, so the prompt is looked up on demand. */
function failed(data) {
  const refused = data.state === 'refused';
  const words = () => store.state.jobs[data.job]?.prompt ?? '';
  const actions = [{ label: t('edit.words'), run: () => restorePrompt(words()) }];
  if (!refused) actions.unshift({ label: t('again'), run: () => retry(data.job) });
  const key = refused ? 'error.refused' : 'error.failed';
  notify({
    kind: 'error',
    about: `job ${data.job}`,
    title: t(key),
    text: sentences(data.message, t(`${key}.step`)),
    actions,
  });
}

/** Put a prompt back into the field, to be changed; a failed edit that is shown gives way to the turn it started from. */
export function restorePrompt(prompt) {
  store.set((state) => withPrompt(state, prompt));
  focusFirst('#prompt');
}

export async function retry(job) {
  const response = await attempt(() => api.retry(job));
  dismissWhere((notice) => notice.about === `job ${job}`);
  if (response) store.set((state) => withJobs(withoutJob(state, job), response.jobs));
}

/** Handle a connection change; only a loss longer than a moment is reported. */
function onConnection(open) {
  clearTimeout(offlineNotice);
  if (open) {
    const lost = !store.state.online;
    dismissWhere((notice) => notice.offline || (notice.cause === 'offline' && !notice.about));
    store.set({ online: true });
    if (lost || Object.values(store.state.jobs).some(isActive)) reload();
    if (lost) notify({ title: t('back.online') });
    return;
  }
  offlineNotice = setTimeout(() => {
    store.set({ online: false });
    notify({ kind: 'error', offline: true, title: t('error.offline'), text: t('error.offline.step') });
  }, 1500);
}

/** Suggested prompt for an example, in the page's language if the server has one. */
export function suggested({ prompts = [] }) {
  const chinese = prompts.find((prompt) => /[\u4e00-\u9fff]/.test(prompt));
  return (language === 'zh' && chinese) || prompts[0] || '';
}

export function openExample(example) {
  store.set({ arriving: { url: example.picture, name: example.title } });
  return attempt(async () => {
    enter(await api.create({ example: example.name }));
    const prompt = store.state.draft.prompt || suggested(example);
    store.set((state) => ({ ...state, draft: { ...state.draft, prompt } }));
    prefill();
  }).finally(() => store.set({ arriving: null }));
}

/** Log out: remove the login of this browser. */
export async function logOut() {
  if ((await attempt(async () => (await api.logout(), true))) === null) return;
  leave();
  store.set({ sessions: null, examples: [], panel: null, login: true });
}

/** Start an empty session, for a picture generated from text. */
export async function startEmpty(name) {
  enter(await api.create({ name: name.slice(0, 60) }));
}

/** Precompute the shown picture's context in the first model while the user types; records the time in milliseconds. */
export async function prefill() {
  const { session } = store.state;
  const turn = base(store.state);
  if (!turn?.picture || store.state.capabilities?.model?.name !== store.state.capabilities?.models?.[0]?.name) return;
  const response = await api.prefill({ session: session.id, turn: turn.id }).catch(() => null);
  if (response?.state !== 'done' || base(store.state)?.id !== turn.id) return;
  store.set({ prefill: Math.max(1, Math.round(response.seconds * 1000)) });
}

/** Store drafts and drawings, so that a reload loses nothing. */
let saving;
store.watchers.add(() => {
  clearTimeout(saving);
  saving = setTimeout(() => {
    const { session, draft, pointing } = store.state;
    if (!session) return;
    const { [session.id]: _, ...others } = recall('drafts', {});
    const empty = draft === DRAFT && !Object.keys(pointing).length;
    const recent = Object.entries(others).slice(-DRAFTS_KEPT);
    keep('drafts', { ...Object.fromEntries(recent), ...(empty ? {} : { [session.id]: { draft, pointing } }) });
  }, 250);
});
