// The toolbar next to the picture: undo, drawing tools, zoom; and the options of the active tool.
import * as act from '../core/actions.js';
import { canStep, clearDrawing, crop, setTool, setWidth, strokesBack, widthOf } from '../core/drawing.js';
import { isEmpty, WIDTHS } from '../core/pointing.js';
import { html, nothing, Part } from '../core/store.js';
import { t } from '../core/text.js';
import { base, redoTarget, undoTarget } from '../core/tree.js';
import { icon, tool } from './icons.js';

const POINTERS = { move: 'm', box: 'b', brush: 'p', eraser: 'e', pen: 'k' };

class Tools extends Part {
  render() {
    const { state } = this;
    const turn = base(state);
    const button = (name, key, run, more = {}) =>
      tool({
        name,
        key,
        run,
        tip: 'right',
        ...more,
        label: t(`key.${more.label ?? name}`),
        short: t(`short.${more.label ?? name}`),
      });
    const drawn = turn && !isEmpty(state.pointing[turn.id]);
    return html`<div class="tools" role="toolbar" aria-label=${t('tools')} aria-orientation="vertical">
      ${button('undo', 'u', act.undo, { disabled: !undoTarget(state) })}
      ${button('redo', 'r', act.redo, { disabled: !redoTarget(state) })}
      <hr />
      ${Object.entries(POINTERS).map(([name, key]) =>
        button(name, key, () => setTool(name), {
          pressed: state.tool === name && !state.compare,
          disabled: !turn?.picture || (name === 'eraser' && !drawn && state.tool !== 'eraser'),
        }),
      )}
      <hr />
      ${button('zoomIn', '+', () => act.zoom(1.5), { label: 'zoom.in', kind: 'zoom' })}
      ${button('zoomOut', '-', () => act.zoom(1 / 1.5), { label: 'zoom.out', kind: 'zoom', disabled: state.view.scale === 1 })}
      ${button('fit', '0', act.fit, { kind: 'zoom', disabled: state.view.scale === 1 })}
    </div>`;
  }
}

/** The line above the prompt while drawing: brush size, undo, clear, crop. */
export function drawingBar(state) {
  const turn = base(state);
  const pointing = turn && state.pointing[turn.id];
  const wide = WIDTHS[state.tool];
  const small = (name, run, disabled) =>
    html`<button type="button" class="quiet small do-${name}" ?disabled=${disabled} @click=${run}>${icon(name)}<span>${t(`draw.${name}`)}</span></button>`;
  return html`<div class="above drawing" role="group" aria-label=${t('draw')}>
    ${
      wide
        ? html`<label class="width"><span>${t('draw.width')}</span><input type="range" min=${wide[0]} max=${wide[1]} step="0.002"
          .value=${String(widthOf(state, state.tool))} aria-valuetext=${t('draw.pixels', { n: Math.round(widthOf(state, state.tool) * Math.min(...turn.size)) })}
          @input=${(event) => setWidth(state.tool, Number(event.target.value))} /></label>`
        : nothing
    }
    ${isEmpty(pointing) ? html`<span class="note">${t(`tool.${state.tool}.help`)}</span>` : nothing}
    ${small('undo', () => strokesBack(-1), !canStep(state, -1))}
    ${small('redo', () => strokesBack(1), !canStep(state, 1))}
    ${small('trash', clearDrawing, isEmpty(pointing))}
    ${pointing?.box && state.tool === 'box' ? small('crop', crop, false) : nothing}
  </div>`;
}

customElements.define('kontext-tools', Tools);
