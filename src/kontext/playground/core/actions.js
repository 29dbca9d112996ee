// What a person can do with an open session; each is bound to a button and, in `keys.js`, to a key.
import { api } from './api.js';
import { openFile } from './files.js';
import { keep, recall } from './memory.js';
import { attempt, notify, say } from './notices.js';
import { EMPTY, isEmpty, toPng } from './pointing.js';
import { fetchReference } from './references.js';
import { leave, prefill, restorePrompt, startEmpty } from './sessions.js';
import { DRAFT, editBody, isActive, select, withJobs, withoutJob, withoutTurn, withSession } from './state.js';
import { store } from './store.js';
import { t } from './text.js';
import { base, neighbour, node, redoTarget, undoTarget } from './tree.js';
import { fileName, namesBox, remember } from './words.js';

let sending = false;
let settling;

/** Look at a turn and go on from there; the server is told after a moment. */
export function goTo(id) {
  if (!id || id === store.state.here) return;
  store.set((state) => ({ ...select(state, id), region: false }));
  const at = node(store.state, id);
  say(t('said.at', { turn: at.prompt || t('original') }));
  clearTimeout(settling);
  settling = setTimeout(async () => {
    const { session, here } = store.state;
    if (!session?.turns[here]) return;
    const told = await api.head(session.id, here).catch(() => null);
    if (told) store.set((state) => (state.session?.id === told.id ? withSession(state, told) : state));
    prefill();
  }, 200);
}

export const undo = () => goTo(undoTarget(store.state));
export const redo = () => goTo(redoTarget(store.state));
export const flip = (by) => goTo(neighbour(store.state, by));

/** Send the prompt. What was typed stays until the server has accepted it. */
export async function submit() {
  const { draft, here, jobs } = store.state;
  if (sending || (jobs[here] && isActive(jobs[here]))) return;
  if (!draft.prompt.trim()) {
    say(t('say.something'));
    return document.querySelector('#prompt')?.focus();
  }
  sending = true;
  performance.mark('kontext:send');
  keep('prompts', remember(recall('prompts', []), draft.prompt));
  await attempt(async () => {
    if (!store.state.session) await startEmpty(draft.prompt);
    const parent = base(store.state);
    const body = editBody(store.state, parent?.id, parent ? await pointers(parent) : {});
    const told = await api.edit(store.state.session.id, body);
    store.set((state) => withJobs({ ...state, draft: DRAFT, tool: 'move', compare: null, region: false }, told.jobs));
  }, submit);
  sending = false;
}

/** Box, mask and markup of a turn for the request; drawings go up as pictures first. */
async function pointers(turn) {
  const pointing = store.state.pointing[turn.id];
  const given = {};
  if (isEmpty(pointing)) return given;
  if (pointing.box) given.box = pointing.box;
  const seen = namesBox(store.state.draft.prompt) ? pointing.box : null;
  for (const [kind, box] of [['mask', null], ['markup', seen]]) {
    if (!pointing[kind].length && !box) continue;
    const file = await toPng(kind, pointing[kind], turn.size, box);
    given[kind] = (await api.picture(file, `${kind}.png`)).picture;
  }
  return given;
}

export async function cancel(id = store.state.here) {
  if (store.state.jobs[id] && (await attempt(() => api.cancel(id)))) store.set((state) => withoutJob(state, id));
}

/** More siblings of the shown edit, with other seeds. */
export async function variants(count = Math.max(3, store.state.settings.count)) {
  const { session } = store.state;
  const turn = base(store.state);
  if (turn?.kind !== 'edit') return notify({ title: t('variants.first') });
  const most = Math.min(count, store.state.capabilities?.limits.variants ?? 4);
  const told = await attempt(() => api.variants(session.id, turn.id, most));
  if (told) store.set((state) => withJobs(state, told.jobs));
}

export function point(change) {
  const turn = base(store.state);
  if (!turn) return;
  store.set((state) => {
    const next = { ...EMPTY, ...state.pointing[turn.id], ...change };
    const { [turn.id]: _, ...others } = state.pointing;
    return { ...state, pointing: isEmpty(next) ? others : { ...others, [turn.id]: next } };
  });
}

export function setTool(tool) {
  if (!base(store.state)?.picture) return;
  store.set({ tool, compare: null, region: false });
  say(t(`tool.${tool}.help`));
  if (tool !== 'move') focusSoon('kx-pointer canvas');
}

export function toggleRegion() {
  const turn = base(store.state);
  if (!turn?.region) return notify({ title: t('region.none') });
  if (!turn.facts.changed_fraction) return notify({ title: t('unchanged') });
  store.set((state) => ({ ...state, region: !state.region, compare: null }));
}

/** While `on`: the picture that the shown turn was made from. */
export function showBefore(on) {
  if (store.state.before !== on) store.set({ before: on });
}

/** Compare the shown turn with the one it was made from, or with the first other one. */
export function toggleCompare() {
  const turn = base(store.state);
  if (store.state.compare) return store.set({ compare: null });
  const others = Object.values(store.state.session?.turns ?? {}).filter((one) => one.picture && one !== turn);
  if (!turn || !others.length) return notify({ title: t('compare.none') });
  const other = others.find((one) => one.id === turn.parent) ?? others[0];
  const [a, b] = other.number < turn.number ? [other, turn] : [turn, other];
  store.set({ compare: { a: a.id, b: b.id, mode: recall('compare', 'slider') }, tool: 'move', region: false });
  focusSoon('kx-compare input[type=range]');
}

export function setMode(mode) {
  keep('compare', mode);
  store.set((state) => ({ ...state, compare: { ...state.compare, mode } }));
}

/** Give the file of a turn to the browser; with its history inside unless `bare`. */
export function download(turn = base(store.state), bare = false) {
  if (!turn?.picture) return;
  const address = new URL(turn.picture, location.href);
  address.searchParams.set('download', 'true');
  if (bare) address.searchParams.set('metadata', 'false');
  save(address, `${fileName(turn.name || turn.prompt || store.state.session.name)}.png`);
}

export const downloadSession = () =>
  save(api.exportAddress(store.state.session.id), `${fileName(store.state.session.name, 'session')}.zip`);

function save(address, name) {
  const link = Object.assign(document.createElement('a'), { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

/** The prompt of a turn again; with `all`, its seed, settings and references too. */
export async function reuse(turn, all = false) {
  if (all) {
    const { steps = null, guidance = null, size = 'match', lock = true } = turn.settings;
    store.set((state) => ({ ...state, settings: { ...state.settings, steps, guidance, size, lock, seed: turn.seed } }));
    await attempt(async () => {
      const references = await Promise.all(turn.references.map((url) => fetchReference(url)));
      store.set((state) => ({ ...state, draft: { ...state.draft, references } }));
    });
    goTo(turn.parent);
  }
  restorePrompt(turn.prompt);
}

export async function renameTurn(turn, name) {
  const told = await attempt(() => api.renameTurn(store.state.session.id, turn.id, name));
  if (told) store.set((state) => withSession(state, told));
}

export async function deleteTurn(turn) {
  const { session } = store.state;
  const told = await attempt(() => api.deleteTurn(session.id, turn.id));
  if (told) store.set((state) => ({ ...withSession(withoutTurn(state, turn.id), told), panel: null, compare: null }));
}

export async function renameSession(id, name) {
  const told = await attempt(() => api.renameSession(id, name));
  if (told && store.state.session?.id === id) store.set((state) => withSession(state, told));
  return told;
}

export async function deleteSession(id) {
  if (store.state.session?.id === id) leave();
  await attempt(() => api.deleteSession(id));
  await loadSessions();
}

export async function loadSessions() {
  const told = await attempt(() => api.sessions());
  if (told) store.set({ sessions: told.sessions });
}

export function openPanel(panel) {
  store.set({ panel });
  if (panel === 'gallery') loadSessions();
}

/** Ask for a file; `camera` opens the camera on phones. */
export function choose(then = openFile, camera = false) {
  const input = Object.assign(document.createElement('input'), { type: 'file', accept: 'image/*,.zip' });
  if (camera) input.setAttribute('capture', 'environment');
  input.addEventListener('change', () => input.files[0] && then(input.files[0]));
  input.click();
}

/** Focus what the next frames will draw. */
function focusSoon(selector, frames = 60) {
  requestAnimationFrame(() => {
    const found = document.querySelector(selector);
    if (found) found.focus();
    else if (frames) focusSoon(selector, frames - 1);
  });
}

export function zoom(factor, [x, y] = [0, 0]) {
  store.set((state) => {
    const scale = Math.min(Math.max(state.view.scale * factor, 1), 24);
    const by = scale / state.view.scale;
    const view = scale === 1 ? { scale, x: 0, y: 0 } : { scale, x: x - (x - state.view.x) * by, y: y - (y - state.view.y) * by };
    return { ...state, view };
  });
}

export const pan = (dx, dy) =>
  store.set((state) => ({ ...state, view: { ...state.view, x: state.view.x + dx, y: state.view.y + dy } }));

export const fit = () => store.set({ view: { scale: 1, x: 0, y: 0 } });

export function setSettings(change) {
  store.set((state) => ({ ...state, settings: { ...state.settings, ...change } }));
}

/** Lock the seed of the shown turn, or draw a new one each time. */
export function toggleSeed() {
  const { settings } = store.state;
  const seed = settings.seed === null ? (base(store.state)?.seed ?? Math.floor(Math.random() * 2 ** 32)) : null;
  setSettings({ seed });
  say(seed === null ? t('seed.drawn') : t('seed.locked', { seed }));
}
