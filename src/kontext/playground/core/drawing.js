// Pointing at the shown turn: which tool is in hand, strokes and their undoing, and what of it goes into a request.
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

/** Change what is drawn on the shown turn; `step`: undo leads back to before. */
export function point(change, step = true) {
  const turn = base(store.state);
  if (turn) store.set((state) => withPointing(state, turn.id, change, step));
}

/** Begin a stroke of the tool in hand, or go on with it; both are one step for undo. */
export function stroke(one, began) {
  const turn = base(store.state);
  if (!turn) return;
  const { tool, pointing } = store.state;
  const now = { ...EMPTY, ...pointing[turn.id] };
  if (began) return point(withStroke(now, tool, one));
  const going = TOOLS[tool].filter((kind) => now[kind].length && now[kind].at(-1).points[0] === one.points[0]);
  point(Object.fromEntries(going.map((kind) => [kind, [...now[kind].slice(0, -1), one]])), false);
}

export const clearDrawing = () => point(EMPTY);

/** What was drawn on the shown turn, one step back (-1) or forward (1). */
export function strokesBack(by) {
  const turn = base(store.state);
  if (turn) store.set((state) => withStrokesBack(state, turn.id, by));
}

/** Whether there is a step to go back or forward to. */
export function canStep(state, by) {
  const { past = [], future = [] } = state.strokes[base(state)?.id] ?? {};
  return (by < 0 ? past : future).length > 0;
}

export function setTool(tool) {
  if (!base(store.state)?.picture) return;
  store.set({ tool, compare: null, region: false });
  say(t(`tool.${tool}.help`));
  if (tool !== 'move') focusSoon('kx-pointer canvas');
}

/** Width of a tool's strokes as a share of the picture's shorter side. */
export const widthOf = (state, tool) => state.widths[tool] ?? recall('widths', {})[tool] ?? WIDTHS[tool]?.[2] ?? 0;

export function setWidth(tool, share) {
  if (!WIDTHS[tool]) return;
  const [least, most] = WIDTHS[tool];
  const widths = { ...store.state.widths, [tool]: Math.min(Math.max(share, least), most) };
  keep('widths', { ...recall('widths', {}), ...widths });
  store.set({ widths });
}

/** The tool in hand a step wider or narrower. */
export const widen = (by) => setWidth(store.state.tool, widthOf(store.state, store.state.tool) * by);

const shownBox = (pointing, prompt) => (pointing.box && namesBox(prompt) ? pointing.box : null);

/** Why the drawing on the shown turn cannot be used, as a key of the locales; null when it can. */
export function problemHere() {
  const turn = base(store.state);
  const pointing = turn && store.state.pointing[turn.id];
  if (isEmpty(pointing)) return null;
  return problem(pointing, turn.size, shownBox(pointing, store.state.draft.prompt));
}

/** Box, mask and markup of a turn for the request; drawings go up as pictures first. Box and strokes: either may change. */
export async function pointers(turn, prompt) {
  const pointing = store.state.pointing[turn.id];
  const given = {};
  if (isEmpty(pointing)) return given;
  const box = shownBox(pointing, prompt);
  const upload = async (kind, file) => (given[kind] = (await api.picture(await file, `${kind}.png`)).picture);
  if (pointing.mask.length) await upload('mask', maskPng(pointing, turn.size));
  else if (pointing.box) given.box = pointing.box;
  if (pointing.markup.length || box) await upload('markup', markupPng(pointing.markup, turn.size, box));
  return given;
}

/** The part of the shown picture inside the box, as the first picture of a new session. */
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
