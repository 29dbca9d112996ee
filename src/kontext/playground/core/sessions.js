// Opening, following and leaving sessions: everything between a dropped file and a picture on the stage.
import { api, follow } from './api.js';
import { keep, recall } from './memory.js';
import { attempt, dismissWhere, fail, notify, say } from './notices.js';
import { DRAFT, initial, isActive, withEvent, withJobs, withoutJob, withSession } from './state.js';
import { store } from './store.js';
import { duration, language, percent, t } from './text.js';
import { base } from './tree.js';
import { sentences, warningsFor } from './words.js';

const DRAFTS_KEPT = 12;
let stop = () => {};
let offlineNotice = null;
let loading = null; // {id, revision}: the session being loaded again and the newest of it that was heard of
const warned = new Set(); // each warning once a session; the details of a turn have it always

export async function boot() {
  const [capabilities, told] = await Promise.all([
    api.capabilities().catch((error) => (fail(error, () => location.reload()), null)),
    api.examples().catch((error) => ({ examples: [], locked: error.code === 'no_key' })),
  ]);
  store.set({ capabilities, examples: told.examples, login: told.locked ?? false });
  if (capabilities && !capabilities.ready) waitForModel();
  if (!told.locked) await followAddress();
}

/** Open the session that the address names. */
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
    if (capabilities) store.set({ capabilities });
  }
  const told = await api.examples().catch(() => null); // what to say to them is known with the model
  if (told) store.set({ examples: told.examples });
  return null;
}

/** Show a session and follow it. */
export function enter(told) {
  leaveQuietly();
  if (store.state.session?.id !== told.id) dismissWhere((one) => one.kind === 'error');
  const kept = recall('drafts', {})[told.id] ?? {};
  store.set((state) => ({
    ...withSession(state, told),
    draft: kept.draft ?? state.draft,
    pointing: kept.pointing ?? {},
    settings: { ...state.settings, size: state.session?.id === told.id ? state.settings.size : 'match' },
    panel: null,
    prefill: null,
    region: false,
  }));
  history.replaceState(null, '', `#${told.id}`);
  stop = follow(told.id, hear, line);
}

function leaveQuietly() {
  stop();
  stop = () => {};
  clearTimeout(offlineNotice);
}

/** Back to the first page; everything made stays in the gallery. */
export function leave() {
  leaveQuietly();
  dismissWhere((one) => one.kind === 'error' && !one.offline);
  const { capabilities, examples, settings, notices, panel, sessions, online, login } = store.state;
  store.set({ ...initial(), ready: true, capabilities, examples, settings, notices, panel, sessions, online, login });
  history.replaceState(null, '', location.pathname);
}

export function openSession(id) {
  return attempt(async () => enter(await api.session(id)));
}

/** Load the session again, and once more if a newer revision is heard of meanwhile; what is looked at stays. */
export async function reload(revision = 0) {
  const id = store.state.session?.id;
  if (loading?.id === id) loading.revision = Math.max(loading.revision, revision);
  if (!id || loading?.id === id) return;
  const mine = (loading = { id, revision });
  let told;
  let heard;
  do {
    heard = mine.revision;
    told = await api.session(id).catch(() => null);
  } while (loading === mine && mine.revision > heard);
  if (loading !== mine) return;
  loading = null;
  if (!told || store.state.session?.id !== id) return;
  store.set((state) => withSession(state, told));
  const known = new Set([...told.jobs, ...told.turns].map((one) => one.id));
  Object.values(store.state.jobs).filter((job) => isActive(job) && job.state !== 'sending' && !known.has(job.id)).forEach(lookUp);
}

/** How a job ended whose last event was not heard. */
async function lookUp({ id }) {
  const job = await api.job(id).catch((error) => (error.status === 404 ? { state: 'cancelled' } : null));
  if (job && !isActive(job) && job.state !== 'done') hear('failed', { job: id, state: job.state, message: job.error });
}

function hear(name, data) {
  if (name === 'gone') {
    leave();
    return notify({ kind: 'error', title: t('error.gone'), text: t('error.gone.step') });
  }
  const { session, jobs } = store.state;
  if (name === 'changed') return data.revision > session.revision ? reload(data.revision) : null;
  if (name === 'queued' && !jobs[data.job]) setTimeout(() => store.state.jobs[data.job]?.prompt ?? reload(), 400);
  if (name === 'done' && data.turn.picture) new Image().src = data.turn.picture; // before all thumbnails
  store.set((state) => withEvent(state, name, data, performance.now()));
  if (name === 'done' || name === 'failed') dismissWhere((one) => one.cause === 'queue_full'); // there is room again
  if (name === 'done') finished(data);
  else if (name === 'failed' && data.state !== 'cancelled') failed(data);
  else if (name === 'failed') say(t('said.cancelled'));
  else if (name === 'queued' && data.position > 1) say(t('said.queued', { n: data.position }));
  else if (name === 'step' && data.step === 1) say(t('said.started', { n: data.steps }));
}

function finished({ turn }) {
  const { total } = turn.facts.seconds ?? {};
  const changed = turn.facts.changed_fraction;
  say([
    t('said.done', { prompt: turn.prompt }),
    total ? duration(total) : '',
    turn.region && changed !== undefined ? t('changed', { share: percent(changed) }) : '',
  ].join(' '));
  const first = store.state.session.turns[turn.parent]?.kind === 'source';
  for (const warning of warningsFor(turn.facts.warnings, first)) {
    const key = `${store.state.session.id} ${warning}`;
    if (!warned.has(key)) notify({ kind: 'warning', title: t('warning'), text: sentences(warning) });
    warned.add(key);
  }
}

/** Say why an edit came to nothing. The event may overtake the answer to the request, so the words are looked up late. */
function failed(data) {
  const refused = data.state === 'refused';
  const words = () => store.state.jobs[data.job]?.prompt ?? '';
  const actions = [{ label: t('edit.words'), run: () => restorePrompt(words()) }];
  if (!refused) actions.unshift({ label: t('again'), run: () => retry(data.job) });
  const key = refused ? 'error.refused' : 'error.failed';
  notify({ kind: 'error', about: `job ${data.job}`, title: t(key), text: sentences(data.message, t(`${key}.step`)), actions });
}

export function restorePrompt(prompt) {
  store.set((state) => ({ ...state, draft: { ...state.draft, prompt } }));
  document.querySelector('#prompt')?.focus();
}

export async function retry(job) {
  const told = await attempt(() => api.retry(job));
  dismissWhere((one) => one.about === `job ${job}`);
  if (told) store.set((state) => withJobs(withoutJob(state, job), told.jobs));
}

/** The connection came or went; only a loss of more than a moment is worth words. */
function line(open) {
  clearTimeout(offlineNotice);
  if (open) {
    const lost = !store.state.online;
    dismissWhere((one) => one.offline || one.cause === 'offline');
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

/** What to say about an example, in the language of the page where the server has it. */
export function suggested({ prompts = [] }) {
  const chinese = prompts.find((one) => /[\u4e00-\u9fff]/.test(one));
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

/** Forget the key of this browser. */
export async function logOut() {
  if ((await attempt(async () => (await api.logout(), true))) === null) return;
  leave();
  store.set({ sessions: null, examples: [], panel: null, login: true });
}

/** An empty session, for a picture from words alone. */
export async function startEmpty(name) {
  enter(await api.create({ name: name.slice(0, 60) }));
}

/** Have the shown picture's keys and values computed while the person types; says in how many milliseconds. */
export async function prefill() {
  const { session } = store.state;
  const turn = base(store.state);
  if (!turn?.picture) return;
  const told = await api.prefill({ session: session.id, turn: turn.id }).catch(() => null);
  if (told?.state !== 'done' || base(store.state)?.id !== turn.id) return;
  store.set({ prefill: Math.max(1, Math.round(told.seconds * 1000)) });
}

/** Keep what was typed and drawn, so that a reload loses nothing. */
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
