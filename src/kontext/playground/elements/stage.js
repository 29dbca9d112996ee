// The large picture: the shown turn, progress of the next one, the changed region; zoom and pan.
import * as act from '../core/actions.js';
import { html, nothing, Part } from '../core/store.js';
import { t } from '../core/text.js';
import { isEmpty } from '../core/pointing.js';
import { outputSize } from '../core/sizes.js';
import { base, isActive, node } from '../core/tree.js';
import { styleProps } from '../core/style.js';
import './compare.js';
import { Pannable } from './pannable.js';
import './pointer.js';
import { veil } from './region.js';
import { icon, title } from './icons.js';

const HOLD_MILLISECONDS = 220; // a press this long shows the previous picture

class Stage extends Part {
  static properties = { shown: { state: true }, news: { state: true } };
  #hands = new Pannable();

  connectedCallback() {
    super.connectedCallback();
    this.addEventListener('wheel', (event) => this.#wheel(event), { passive: false });
  }

  #wheel(event) {
    const well = event.target.closest('.well');
    if (well && !this.state.compare) this.#hands.wheel(event, well.getBoundingClientRect());
  }

  /** The old picture stays until the new one is decoded, which avoids flicker. */
  willUpdate() {
    const turn = base(this.state);
    const job = node(this.state, this.state.here)?.job;
    if (job?.preview) this.held = job.preview;
    if (job) this.making = job.id;
    if (!turn?.picture) {
      this.wanted = null;
      if (!turn) this.shown = null;
      return;
    }
    if (this.wanted === turn.picture) return;
    this.wanted = turn.picture;
    this.#load(turn);
  }

  async #load(turn) {
    const image = new Image();
    image.src = turn.picture;
    await image.decode().catch(() => null);
    if (this.wanted !== turn.picture) return;
    this.held = null;
    this.shown = turn;
    this.news = this.making === turn.id && turn.facts.changed_fraction ? turn.region : null;
    this.making = null;
    if (turn.kind !== 'source') performance.mark('kontext:shown');
  }

  updated() {
    /** @type {NodeListOf<HTMLCanvasElement>} */
    const canvases = this.querySelectorAll('canvas.veil, canvas.news');
    for (const canvas of canvases) {
      if (canvas.dataset.of !== this.shown.region) veil(canvas, this.shown.region);
    }
  }

  #press(event) {
    const { tool, view } = this.state;
    if (tool !== 'move') return;
    this.#hands.down(event);
    if (!event.button && view.scale === 1) this.holding = setTimeout(() => act.showBefore(true), HOLD_MILLISECONDS);
  }

  #release(event) {
    clearTimeout(this.holding);
    act.showBefore(false);
    this.#hands.up(event);
  }

  #picture() {
    const { state, shown } = this;
    const found = node(state, state.here)?.job;
    const job = found && isActive(found) ? found : null;
    const turn = shown ?? { size: this.#promised(job) };
    const { scale, x, y } = state.view;
    const turnHere = base(state);
    const pointing = turnHere && state.pointing[turnHere.id];
    const preview = job ? (job.preview ?? null) : this.held;
    const before = state.before && !job && shown && state.session.turns[shown.parent];
    const pointable = shown && turnHere?.id === shown.id && !job && (state.tool !== 'move' || !isEmpty(pointing));
    return html`<div
      class="frame ${job ? 'working' : ''} ${scale > 3 ? 'pixels' : ''}"
      aria-busy=${Boolean(job) || (Boolean(this.wanted) && this.wanted !== shown?.picture)}
      ${styleProps({ '--aspect': turn.size[0] / turn.size[1], transform: `translate(${x}px, ${y}px) scale(${scale})` })}
    >
      ${
        shown
          ? html`<img class="picture" src=${(before || shown).picture} alt=${title(before || shown)} draggable="false" />`
          : html`<div class="picture blank"></div>`
      }
      ${before ? html`<span class="before">${t('before')}</span>` : nothing}
      ${preview ? html`<img class="preview" src=${preview} alt="" @load=${() => performance.mark('kontext:preview')} draggable="false" />` : nothing}
      ${
        this.news && this.news === shown?.region && !job && !before
          ? html`<canvas class="news" aria-hidden="true" @animationend=${() => (this.news = null)}></canvas>`
          : nothing
      }
      ${state.region && shown?.region ? html`<canvas class="veil" role="img" aria-label=${t('region.shown')}></canvas>` : nothing}
      ${pointable ? html`<kontext-pointer></kontext-pointer>` : nothing}
      ${
        job && isActive(job)
          ? html`<progress class="line" max=${job.steps || 1} value=${job.step || 0} aria-label=${t('progress')}></progress>`
          : nothing
      }
    </div>`;
  }

  /** Expected size of a picture that is being generated from text. */
  #promised(job) {
    const native = this.state.capabilities?.model?.native_sizes ?? [[1, 1]];
    return outputSize(job?.size ?? this.state.settings.size, null, native) ?? [1, 1];
  }

  render() {
    const { state } = this;
    const turn = base(state);
    if (state.arriving) {
      return html`<div class="well"><div class="arriving">
        <img src=${state.arriving.url} alt="" /><p role="status">${t('arriving', { name: state.arriving.name })}</p>
      </div></div>`;
    }
    if (state.compare) return html`<kontext-compare></kontext-compare>`;
    if (!turn && !node(state, state.here)) return html`<div class="well"><p class="hint">${t('empty.session')}</p></div>`;
    if (turn && !turn.picture) return html`<div class="well"><p class="hint">${icon('picture')}${t('no.picture')}</p></div>`;
    return html`<div
        class="well ${state.view.scale > 1 && state.tool === 'move' ? 'grab' : ''}"
        @pointerdown=${this.#press}
        @pointermove=${(event) => this.#hands.move(event, state.view.scale)}
        @pointerup=${this.#release}
        @pointercancel=${this.#release}
        @contextmenu=${(event) => event.pointerType === 'touch' && event.preventDefault()}
        @dblclick=${() => state.tool === 'move' && (state.view.scale > 1 ? act.fit() : act.zoom(2))}
      >
        ${this.#picture()}
      </div>`;
  }
}

customElements.define('kontext-stage', Stage);
