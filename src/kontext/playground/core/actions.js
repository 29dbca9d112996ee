// What a person can do with an open session; each is bound to a button and, in `keys.js`, to a key.
// Sending is in `sending.js`, pointing in `drawing.js`, what leaves the page in `saving.js`.
import { api } from './api.js';
import { openFile } from './files.js';
import { keep, recall } from './memory.js';
import { attempt, notify, say } from './notices.js';
import { fetchReference } from './references.js';
import { leave, prefill, restorePrompt } from './sessions.js';
import { select, withoutTurn, withSession } from './state.js';
import { store } from './store.js';
import { t } from './text.js';
import { base, neighbour, node, redoTarget, undoTarget } from './tree.js';

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
export function focusSoon(selector, frames = 60) {
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
