// All keyboard shortcuts in one table; the help page and the button tooltips are built from it.
import * as act from './actions.js';
import { setTool, strokesBack, canStep, widen } from './drawing.js';
import { referenceFile } from './references.js';
import { keep, recall } from './memory.js';
import { copy, download } from './saving.js';
import { cancel, variants } from './sending.js';
import { focusFirst } from './focus.js';
import { leave } from './sessions.js';
import { store } from './store.js';

/** `key` as in KeyboardEvent.key; single letters work outside text fields and can be switched off. */
export const KEYS = [
  { key: '/', name: 'prompt', run: () => focusFirst('#prompt') },
  { key: 'Enter', name: 'send' },
  { key: 'Shift+Enter', name: 'line' },
  { key: 'ArrowUp', name: 'history' },
  { key: 'Escape', name: 'escape', run: escape },
  { key: 'u', name: 'undo', run: act.undo },
  { key: 'r', name: 'redo', run: act.redo },
  { key: '[', name: 'previous', run: () => act.flip(-1) },
  { key: ']', name: 'next', run: () => act.flip(1) },
  { key: 't', name: 'turns', run: () => focusFirst('kontext-turns [tabindex="0"]') },
  { key: 'v', name: 'variants', run: () => variants() },
  { key: ' ', name: 'before', run: () => act.showBefore(true) },
  { key: 'c', name: 'compare', run: act.toggleCompare },
  { key: 'g', name: 'region', run: act.toggleRegion },
  { key: 'm', name: 'move', run: () => setTool('move') },
  { key: 'b', name: 'box', run: () => setTool('box') },
  { key: 'p', name: 'brush', run: () => setTool('brush') },
  { key: 'e', name: 'eraser', run: () => setTool('eraser') },
  { key: 'k', name: 'pen', run: () => setTool('pen') },
  { key: ',', name: 'narrower', run: () => widen(1 / 1.25) },
  { key: '.', name: 'wider', run: () => widen(1.25) },
  { key: 'l', name: 'seed', run: act.toggleSeed },
  { key: '+', name: 'zoom.in', run: () => act.zoom(1.5) },
  { key: '-', name: 'zoom.out', run: () => act.zoom(1 / 1.5) },
  { key: '0', name: 'fit', run: act.fit },
  { key: 'd', name: 'download', run: () => download() },
  { key: 'y', name: 'copy', run: () => copy() },
  { key: 's', name: 'code', run: () => store.state.session && act.openPanel('code') },
  { key: 'i', name: 'details', run: () => store.state.session && act.openPanel('details') },
  { key: 'o', name: 'open', run: () => act.choose() },
  { key: 'a', name: 'add', run: () => store.state.session && act.choose(referenceFile) },
  { key: 'n', name: 'new', run: leave },
  { key: 'q', name: 'queue', run: () => store.state.session && act.openPanel('queue') },
  { key: 'h', name: 'gallery', run: () => act.openPanel('gallery') },
  { key: '?', name: 'help', run: () => act.openPanel('help') },
];

const table = Object.fromEntries(KEYS.filter((entry) => entry.run).map((entry) => [entry.key, entry]));
const TYPING = 'input:not([type=range],[type=radio],[type=checkbox],[type=button]), textarea, select, [contenteditable]';

export const singleKeys = () => recall('keys', true);
export const setSingleKeys = (on) => keep('keys', on);

/** Leave the current mode, one at a time: comparison, tool, running edit, zoom. */
function escape() {
  const { compare, tool, region, here, jobs, view } = store.state;
  if (compare) return store.set({ compare: null });
  if (tool !== 'move') return setTool('move');
  if (region) return store.set({ region: false });
  if (jobs[here]) return cancel(here);
  if (view.scale > 1) return act.fit();
}

export function onKeyUp(event) {
  if (event.key === ' ') act.showBefore(false);
}

export function onKey(event) {
  if (event.defaultPrevented || event.isComposing || document.querySelector('dialog[open]')) return;
  const typing = event.target.closest?.(TYPING);
  const command = event.ctrlKey || event.metaKey;
  if (command && !typing && event.key.toLowerCase() === 'z') {
    event.preventDefault();
    const by = event.shiftKey ? 1 : -1;
    if (store.state.tool !== 'move' && canStep(store.state, by)) return strokesBack(by); // drawing steps first
    return event.shiftKey ? act.redo() : act.undo();
  }
  if (command || event.altKey || (typing && event.key !== 'Escape')) return;
  if (event.key === ' ' && event.target.closest?.('button, summary, a, input, [role=application]')) return;
  const found = table[event.key];
  if (!found || (event.key !== 'Escape' && !singleKeys())) return;
  if (event.key !== 'Escape') event.preventDefault();
  found.run();
}
