// The icons (strokes on a 24 grid) and the icon button.
import { html, nothing } from '../core/store.js';
import { t } from '../core/text.js';

const PATHS = {
  send: 'M12 19V5M5.5 11.5 12 5l6.5 6.5',
  stop: 'M7 7h10v10H7z',
  plus: 'M12 5v14M5 12h14',
  close: 'M6 6l12 12M18 6 6 18',
  move: 'M8 12V5.5a1.5 1.5 0 0 1 3 0V11m0-6.5v-1a1.5 1.5 0 0 1 3 0V11m0-5.5a1.5 1.5 0 0 1 3 0V13m0-3.5a1.5 1.5 0 0 1 3 0V15a6 6 0 0 1-6 6h-2c-2 0-3.4-.8-4.5-2.3L4.3 14.5a1.5 1.5 0 0 1 2.3-1.9L8 14',
  box: 'M7 5h10M7 19h10M5 7v10M19 7v10M3.5 3.5h3v3h-3zM17.5 3.5h3v3h-3zM3.5 17.5h3v3h-3zM17.5 17.5h3v3h-3z',
  brush: 'M20 4c-4 1-8.5 5-10.5 8.5l2 2C15 12.5 19 8 20 4zM9.5 12.5c-2 0-3.5 1.5-3.5 3.5 0 1.5-.5 2.5-2 3 3.5 1 7.5.5 7.5-4.5',
  pen: 'M4 20l1-4.5L16 4.5a2.1 2.1 0 0 1 3 0l.5.5a2.1 2.1 0 0 1 0 3L8.5 19 4 20zM14 6.5l3.5 3.5',
  bolt: 'M13 3 5 13.5h6L10.500 21 19 10.500h-6z',
  undo: 'M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3',
  redo: 'm15 14 5-5-5-5M20 9H10a6 6 0 0 0 0 12h3',
  compare: 'M12 3v18M9 6H5.5A1.5 1.5 0 0 0 4 7.5v9A1.5 1.5 0 0 0 5.5 18H9m6-12h3.5A1.5 1.5 0 0 1 20 7.5v9a1.5 1.5 0 0 1-1.5 1.5H15',
  region: 'M4 12s3-6 8-6 8 6 8 6-3 6-8 6-8-6-8-6zM12 14.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5z',
  zoomIn: 'M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM20 20l-4-4M11 8v6M8 11h6',
  zoomOut: 'M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM20 20l-4-4M8 11h6',
  fit: 'M9 4H4v5M15 4h5v5M9 20H4v-5M15 20h5v-5',
  download: 'M12 4v11M7 10.5l5 5 5-5M5 20h14',
  variants:
    'M4 5.5A1.5 1.5 0 0 1 5.5 4H10v6.5H4zM14 4h4.5A1.5 1.5 0 0 1 20 5.5v5h-6zM4 14h6v6H5.5A1.5 1.5 0 0 1 4 18.5zM14 14h6v4.5a1.5 1.5 0 0 1-1.5 1.5H14z',
  gallery:
    'M4 7.5A1.5 1.5 0 0 1 5.5 6h13A1.5 1.5 0 0 1 20 7.5v11a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 18.5zM7 3h10M4.5 17l4.5-4.5 3.5 3.5 2.5-2.5 4.5 4.5',
  info: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM12 11v5M12 8v.010',
  help: 'M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18zM9.5 9.5a2.5 2.5 0 1 1 3.5 2.3c-.7.3-1 .8-1 1.5v.5M12 16.5v.010',
  theme: 'M12 21a9 9 0 1 1 0-18zm0 0a9 9 0 1 0 0-18M15 5.5v13M18 8v8',
  seed: 'M5.5 4h13A1.5 1.5 0 0 1 20 5.5v13a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 18.5v-13A1.5 1.5 0 0 1 5.5 4zM8.5 8.5v.010M15.5 8.5v.010M12 12v.010M8.5 15.5v.010M15.5 15.5v.010',
  lock: 'M7 11V8a5 5 0 0 1 10 0v3M6.5 11h11a1.5 1.5 0 0 1 1.5 1.5v6a1.5 1.5 0 0 1-1.5 1.5h-11A1.5 1.5 0 0 1 5 18.5v-6A1.5 1.5 0 0 1 6.5 11z',
  unlock:
    'M7 11V8a5 5 0 0 1 9.5-2.2M6.5 11h11a1.5 1.5 0 0 1 1.5 1.5v6a1.5 1.5 0 0 1-1.5 1.5h-11A1.5 1.5 0 0 1 5 18.5v-6A1.5 1.5 0 0 1 6.5 11z',
  more: 'M5 7h9M18 7h1M5 12h3M12 12h7M5 17h7M16 17h3M14 5v4M8 10v4M12 15v4',
  trash: 'M5 7h14M10 7V5h4v2M7 7l1 13h8l1-13',
  camera:
    'M4 8.5A1.5 1.5 0 0 1 5.5 7H8l1.5-2.5h5L16 7h2.5A1.5 1.5 0 0 1 20 8.5v9a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 17.5zM12 16a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7z',
  picture:
    'M5.5 4h13A1.5 1.5 0 0 1 20 5.5v13a1.5 1.5 0 0 1-1.5 1.5h-13A1.5 1.5 0 0 1 4 18.5v-13A1.5 1.5 0 0 1 5.5 4zM4.5 17l5-5 4 4 2.5-2.5 3.5 3.5M9 9v.010',
  eraser: 'M9 20h11M4.5 14.5l9-9a2 2 0 0 1 2.8 0l3.2 3.2a2 2 0 0 1 0 2.8L11 20H8.5l-4-4a1 1 0 0 1 0-1.5zM9 10l6 6',
  left: 'm14 6-6 6 6 6',
  right: 'm10 6 6 6-6 6',
  crop: 'M7 3v13a1 1 0 0 0 1 1h13M3 7h13a1 1 0 0 1 1 1v13',
  copy: 'M9.5 8h9A1.5 1.5 0 0 1 20 9.500v9a1.5 1.5 0 0 1-1.5 1.5h-9A1.5 1.5 0 0 1 8 18.500v-9A1.5 1.5 0 0 1 9.5 8zM16 8V5.500A1.5 1.5 0 0 0 14.5 4h-9A1.5 1.5 0 0 0 4 5.500v9A1.5 1.5 0 0 0 5.500 16H8',
  code: 'm8.500 7-5 5 5 5M15.500 7l5 5-5 5M13.500 5l-3 14',
  queue: 'M4 6.500h16M4 12h16M4 17.500h9M16.500 15.500l4 2-4 2z',
  leave: 'M14 4h4.500A1.5 1.5 0 0 1 20 5.500v13a1.5 1.5 0 0 1-1.5 1.5H14M10 16l-4-4 4-4M6 12h9',
  search: 'M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14zM20 20l-4-4',
};

export const icon = (name) => html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${PATHS[name]} /></svg>`;

/**
 * A button with an icon; a tooltip shows its label and key, and `short` is shown next to it if there is room.
 * @param {object} options
 * @param {string} options.name of the icon
 * @param {string} options.label
 * @param {string} [options.short]
 * @param {string} [options.key] keyboard shortcut
 * @param {() => unknown} options.run
 * @param {boolean} [options.pressed] of a toggle
 * @param {boolean} [options.disabled]
 * @param {string} [options.kind] further CSS classes
 * @param {string} [options.tip] side of the tooltip
 */
export function tool({ name, label, short, key, run, pressed, disabled = false, kind = '', tip = 'top' }) {
  const hint = key ? `${label}  ${key.toUpperCase()}` : label;
  return html`<button
    type="button"
    class="tool ${kind}"
    data-tip=${hint}
    data-side=${tip}
    aria-label=${label}
    aria-keyshortcuts=${key ?? nothing}
    aria-pressed=${pressed === undefined ? nothing : String(pressed)}
    ?disabled=${disabled}
    @click=${run}
  >
    ${icon(name)}${short ? html`<span class="short">${short}</span>` : nothing}
  </button>`;
}

/** Title of a turn: its name, its prompt, or a label for the first picture. */
export const title = (turn) => turn.name || turn.prompt || t(turn.kind === 'source' ? 'original' : 'untitled');
