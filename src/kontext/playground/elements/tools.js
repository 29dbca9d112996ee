// The tools beside the picture: walk, point, look closer.
import * as act from '../core/actions.js';
import { isEmpty } from '../core/pointing.js';
import { html, nothing, Part } from '../core/store.js';
import { t } from '../core/text.js';
import { base, redoTarget, undoTarget } from '../core/tree.js';
import { tool } from './icons.js';

const POINTERS = { move: 'm', box: 'b', brush: 'p', pen: 'k' };

class Tools extends Part {
  render() {
    const { state } = this;
    const turn = base(state);
    const button = (name, key, run, more = {}) =>
      tool({ name, label: t(`key.${more.label ?? name}`), key, run, tip: 'right', ...more, label: t(`key.${more.label ?? name}`) });
    const drawn = turn && !isEmpty(state.pointing[turn.id]);
    return html`<div class="tools" role="toolbar" aria-label=${t('tools')} aria-orientation="vertical">
      ${button('undo', 'u', act.undo, { disabled: !undoTarget(state) })}
      ${button('redo', 'r', act.redo, { disabled: !redoTarget(state) })}
      <hr />
      ${Object.entries(POINTERS).map(([name, key]) =>
        button(name, key, () => act.setTool(name), { pressed: state.tool === name && !state.compare, disabled: !turn?.picture }),
      )}
      ${drawn
        ? button('eraser', undefined, () => act.point({ box: null, mask: [], markup: [] }), { label: 'erase' })
        : nothing}
      <hr />
      ${button('zoomIn', '+', () => act.zoom(1.5), { label: 'zoom.in', kind: 'zoom' })}
      ${button('zoomOut', '-', () => act.zoom(1 / 1.5), { label: 'zoom.out', kind: 'zoom', disabled: state.view.scale === 1 })}
      ${button('fit', '0', act.fit, { kind: 'zoom', disabled: state.view.scale === 1 })}
    </div>`;
  }
}

customElements.define('kx-tools', Tools);
