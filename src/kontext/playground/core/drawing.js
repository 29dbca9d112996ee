// Drawing on the shown turn: the active tool, strokes with undo, and what becomes part of a request.
import { focusSoon } from './actions.js';
import { api } from './api.js';
import { recall, keep } from './memory.js';
import { attempt, notify, say } from './notices.js';
import { EMPTY, isEmpty, markupPng, maskPng, problem, TOOLS, WIDTHS, withStroke } from './pointing.js';
import { enter, prefill } from './sessions.js';
import { withPointing, withStrokesBack } from './state.js';
import { store } from './store.js';
import { t } from './text.js';
import { base } from './tree.js';
import { namesBox } from './words.js';

/** Change the drawing on the shown turn; `step` records an undo step. */
export function point(change, step = true) {
  const turn = base(store.state);
  if (turn) store.set((state) => withPointing(state, turn.id, change, step));
}

/** Begin a stroke of the active tool, or extend it; both together are one undo step. */
export function stroke(added, began) {
  const turn = base(store.state);
  if (!turn) return;
  const { tool, pointing } = store.state;
  const now = { ...EMPTY, ...pointing[turn.id] };
  if (began) return point(withStroke(now, tool, added));
  const going = TOOLS[tool].filter((kind) => now[kind].length && now[kind].at(-1).points[0] === added.points[0]);
  point(Object.fromEntries(going.map((kind) => [kind, [...now[kind].slice(0, -1), added]])), false);
}

export const clearDrawing = () => point(EMPTY);

/** Undo (-1) or redo (1) one drawing step on the shown turn. */
export function strokesBack(by) {
  const turn = base(store.state);
  if (turn) store.set((state) => withStrokesBack(state, turn.id, by));
}

/** Whether there is a drawing step to undo (-1) or redo (1). */
export function canStep(state, by) {
  const { past = [], future = [] } = state.strokes[base(state)?.id] ?? {};
  return (by < 0 ? past : future).length > 0;
}

export function setTool(tool) {
  if (!base(store.state)?.picture) return;
  store.set({ tool, compare: null, region: false });
  say(t(`tool.${tool}.help`));
  if (tool !== 'move') focusSoon('kontext-pointer canvas');
}

/** Stroke width of a tool as a fraction of the picture's shorter side. */
export const widthOf = (state, tool) => state.widths[tool] ?? recall('widths', {})[tool] ?? WIDTHS[tool]?.[2] ?? 0;

export function setWidth(tool, share) {
  if (!WIDTHS[tool]) return;
  const [least, most] = WIDTHS[tool];
  const widths = { ...store.state.widths, [tool]: Math.min(Math.max(share, least), most) };
  keep('widths', { ...recall('widths', {}), ...widths });
  store.set({ widths });
}

/** Make the active tool wider or narrower by a factor. */
export const widen = (by) => setWidth(store.state.tool, widthOf(store.state, store.state.tool) * by);

const shownBox = (pointing, prompt) => (pointing.box && namesBox(prompt) ? pointing.box : null);

/** Locale key of the reason why the drawing on the shown turn cannot be used; null if it can. */
export function problemHere() {
  const turn = base(store.state);
  const pointing = turn && store.state.pointing[turn.id];
  if (isEmpty(pointing)) return null;
  return problem(pointing, turn.size, shownBox(pointing, store.state.draft.prompt));
}

/** Box, mask and markup of a turn for the request; drawings are uploaded as pictures first. A box and strokes combine. */
export async function pointers(turn, prompt) {
  const pointing = store.state.pointing[turn.id];
  const fields = {};
  if (isEmpty(pointing)) return fields;
  const box = shownBox(pointing, prompt);
  const upload = async (kind, file) => (fields[kind] = (await api.picture(await file, `${kind}.png`)).picture);
  if (pointing.mask.length) await upload('mask', maskPng(pointing, turn.size));
  else if (pointing.box) fields.box = pointing.box;
  if (pointing.markup.length || box) await upload('markup', markupPng(pointing.markup, turn.size, box));
  return fields;
}

/** Start a new session with the part of the shown picture inside the box. */
export async function crop() {
  const turn = base(store.state);
  const box = turn && store.state.pointing[turn.id]?.box;
  if (!box) return notify({ title: t('crop.none') });
  const { name } = store.state.session;
  await attempt(async () => {
    const bitmap = await createImageBitmap(await api.file(turn.picture), ...box);
    const canvas = new OffscreenCanvas(box[2], box[3]);
    canvas.getContext('2d').drawImage(bitmap, 0, 0);
    bitmap.close();
    const sent = await api.picture(await canvas.convertToBlob({ type: 'image/png' }), 'crop.png');
    enter(await api.create({ picture: sent.picture, name: t('crop.name', { name: name || t('untitled') }).slice(0, 200) }));
    prefill();
  });
}
