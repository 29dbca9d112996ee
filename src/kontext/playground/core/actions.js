// User actions on an open session; each is bound to a button and, in `keys.js`, to a key.
// See `sending.js` for sending edits, `drawing.js` for pointing, `saving.js` for export.
import { api } from './api.js';
import { openFile } from './files.js';
import { keep, recall } from './memory.js';
import { attempt, notify, say } from './notices.js';
import { fetchReference } from './references.js';
import { leave, prefill, restorePrompt } from './sessions.js';
import { chosenModel, optionsOf, select, withModel, withSession, withoutTurn } from './state.js';
import { store } from './store.js';
import { t } from './text.js';
import { base, neighbor, node, redoTarget, undoTarget } from './tree.js';

let settling;

/** Show a turn and continue from it; the server is notified after a short delay. */
export function goTo(id) {
  if (!id || id === store.state.here) return;
  store.set((state) => ({ ...select(state, id), region: false }));
  const at = node(store.state, id);
  say(t('said.at', { turn: at.prompt || t('original') }));
  clearTimeout(settling);
  settling = setTimeout(async () => {
    const { session, here } = store.state;
    if (!session?.turns[here]) return;
    const response = await api.head(session.id, here).catch(() => null);
    if (response) store.set((state) => (state.session?.id === response.id ? withSession(state, response) : state));
    prefill();
  }, 200);
}

export const undo = () => goTo(undoTarget(store.state));
export const redo = () => goTo(redoTarget(store.state));
export const flip = (by) => goTo(neighbor(store.state, by));

export function toggleRegion() {
  const turn = base(store.state);
  if (!turn?.region) return notify({ title: t('region.none') });
  if (!turn.facts.changed_fraction) return notify({ title: t('unchanged') });
  store.set((state) => ({ ...state, region: !state.region, compare: null }));
}

/** While `on`, show the picture that the current turn was made from. */
export function showBefore(on) {
  if (store.state.before !== on) store.set({ before: on });
}

/** Compare the shown turn with its parent, or else with the first other turn. */
export function toggleCompare() {
  const turn = base(store.state);
  if (store.state.compare) return store.set({ compare: null });
  const others = Object.values(store.state.session?.turns ?? {}).filter((other) => other.picture && other !== turn);
  if (!turn || !others.length) return notify({ title: t('compare.none') });
  const other = others.find((sibling) => sibling.id === turn.parent) ?? others[0];
  const [a, b] = other.number < turn.number ? [other, turn] : [turn, other];
  store.set({ compare: { a: a.id, b: b.id, mode: recall('compare', 'slider') }, tool: 'move', region: false });
  focusSoon('kontext-compare input[type=range]');
}

export function setMode(mode) {
  keep('compare', mode);
  store.set((state) => ({ ...state, compare: { ...state.compare, mode } }));
}

/** Choose the model of further edits. */
export function chooseModel(name) {
  keep('model', name);
  store.set((state) => ({ ...withModel(state, name), tokens: null, prefill: null }));
  prefill();
}

/** Reuse the prompt of a turn; with `all`, its seed, settings and references as well. */
export async function reuse(turn, all = false) {
  if (all) {
    const { size = 'match', lock = true } = turn.settings;
    if (chosenModel(store.state) && turn.facts.model) chooseModel(turn.facts.model);
    store.set((state) => ({
      ...state,
      settings: { ...state.settings, ...optionsOf(turn.settings), size, lock, seed: turn.seed },
    }));
    await attempt(async () => {
      const references = await Promise.all(turn.references.map((url) => fetchReference(url)));
      store.set((state) => ({ ...state, draft: { ...state.draft, references } }));
    });
    goTo(turn.parent);
  }
  restorePrompt(turn.prompt);
}

export async function renameTurn(turn, name) {
  const response = await attempt(() => api.renameTurn(store.state.session.id, turn.id, name));
  if (response) store.set((state) => withSession(state, response));
}

export async function deleteTurn(turn) {
  const { session } = store.state;
  const response = await attempt(() => api.deleteTurn(session.id, turn.id));
  if (response) store.set((state) => ({ ...withSession(withoutTurn(state, turn.id), response), panel: null, compare: null }));
}

export async function renameSession(id, name) {
  const response = await attempt(() => api.renameSession(id, name));
  if (response && store.state.session?.id === id) store.set((state) => withSession(state, response));
  return response;
}

export async function deleteSession(id) {
  if (store.state.session?.id === id) leave();
  await attempt(() => api.deleteSession(id));
  await loadSessions();
}

export async function loadSessions() {
  const response = await attempt(() => api.sessions());
  if (response) store.set({ sessions: response.sessions });
}

export function openPanel(panel) {
  store.set({ panel });
  if (panel === 'gallery') loadSessions();
}

/** Open the file picker; `camera` opens the camera on phones. */
export function choose(then = openFile, camera = false) {
  const input = Object.assign(document.createElement('input'), { type: 'file', accept: 'image/*,.zip' });
  if (camera) input.setAttribute('capture', 'environment');
  input.addEventListener('change', () => input.files[0] && then(input.files[0]));
  input.click();
}

/** Focus an element that one of the next frames will render, unless the user is in a text field by then. */
export function focusSoon(selector, frames = 60, before = document.activeElement) {
  requestAnimationFrame(() => {
    const now = document.activeElement;
    if (now !== before && now?.matches('input, textarea')) return;
    const found = document.querySelector(selector);
    if (found) found.focus();
    else if (frames) focusSoon(selector, frames - 1, before);
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

export const pan = (dx, dy) => store.set((state) => ({ ...state, view: { ...state.view, x: state.view.x + dx, y: state.view.y + dy } }));

export const fit = () => store.set({ view: { scale: 1, x: 0, y: 0 } });

export function setSettings(change) {
  store.set((state) => ({ ...state, settings: { ...state.settings, ...change } }));
}

/** Lock the seed of the shown turn, or use a random seed each time. */
export function toggleSeed() {
  const { settings } = store.state;
  const seed = settings.seed === null ? (base(store.state)?.seed ?? Math.floor(Math.random() * 2 ** 32)) : null;
  setSettings({ seed });
  say(seed === null ? t('seed.drawn') : t('seed.locked', { seed }));
}
