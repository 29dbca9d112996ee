// Compare any two turns: slider, side by side, flicker, difference.
import * as act from '../core/actions.js';
import { html, nothing, Part, store } from '../core/store.js';
import { percent, t } from '../core/text.js';
import { styleProps } from '../core/style.js';
import { differencePixels } from './difference.js';
import { icon, title, tool } from './icons.js';
import { Pannable } from './pannable.js';

const MODES = ['slider', 'side', 'flicker', 'difference'];
const FLICKER_MILLISECONDS = 650;

class Compare extends Part {
  static properties = {
    at: { state: true },
    second: { state: true },
    playing: { state: true },
    changed: { state: true },
  };
  #hands = new Pannable();

  constructor() {
    super();
    Object.assign(this, {
      at: 50,
      second: true,
      playing: !matchMedia('(prefers-reduced-motion: reduce)').matches,
      changed: null,
    });
  }

  connectedCallback() {
    super.connectedCallback();
    this.timer = setInterval(() => this.#tick(), FLICKER_MILLISECONDS);
    this.addEventListener('wheel', (event) => this.#wheel(event), { passive: false });
  }

  disconnectedCallback() {
    clearInterval(this.timer);
    super.disconnectedCallback();
  }

  #tick() {
    if (this.state.compare?.mode === 'flicker' && this.playing) this.second = !this.second;
  }

  #wheel(event) {
    const frame = event.target.closest('.well');
    if (frame) this.#hands.wheel(event, frame.getBoundingClientRect());
  }

  get pair() {
    const { session, compare } = this.state;
    return [session.turns[compare.a], session.turns[compare.b]];
  }

  #select(which, label) {
    const turns = Object.values(this.state.session.turns).filter((turn) => turn.picture);
    const chosen = this.state.compare[which];
    return html`<label class="pick ${which}"><span class="letter ${which}">${label}</span>
      <select @change=${(event) => store.set((state) => ({ ...state, compare: { ...state.compare, [which]: event.target.value } }))}>
        ${turns.map(
          (turn) => html`<option value=${turn.id} ?selected=${turn.id === chosen} .selected=${turn.id === chosen}>
          ${turn.number} · ${title(turn).slice(0, 60)}</option>`,
        )}
      </select>
    </label>`;
  }

  #frame(content, aspect) {
    const { scale, x, y } = this.state.view;
    const style = styleProps({ '--aspect': aspect, transform: `translate(${x}px, ${y}px) scale(${scale})` });
    return html`<div
      class="well ${scale > 1 ? 'grab' : ''}"
      @pointerdown=${(event) => scale > 1 && event.target.type !== 'range' && this.#hands.down(event)}
      @pointermove=${(event) => this.#hands.move(event, scale)}
      @pointerup=${(event) => this.#hands.up(event)}
      @pointercancel=${(event) => this.#hands.up(event)}
    >
      <div class="frame ${scale > 3 ? 'pixels' : ''}" ${style}>${content}</div>
    </div>`;
  }

  #image(turn, kind = '', style = {}) {
    return html`<img class="picture ${kind}" src=${turn.picture} alt=${title(turn)} draggable="false" ${styleProps(style)} />`;
  }

  #slider(a, b, aspect) {
    return this.#frame(
      html`${this.#image(a)}${this.#image(b, 'over', { 'clip-path': `inset(0 0 0 ${this.at}%)` })}
        <input
          type="range" min="0" max="100" step="1" .value=${String(this.at)}
          aria-label=${t('divider')} aria-valuetext=${t('divider.value', { n: 100 - Math.round(this.at) })}
          @input=${(event) => (this.at = Number(event.target.value))}
        />
        <div class="divider" ${styleProps({ left: `${this.at}%` })}><span>${icon('left')}${icon('right')}</span></div>`,
      aspect,
    );
  }

  /** Labels of the left and right picture. */
  #names(a, b) {
    return html`<div class="under">
      <span class="letter">A</span><span class="which">${title(a)}</span><i></i>
      <span class="letter b">B</span><span class="which">${title(b)}</span>
    </div>`;
  }

  #flicker(a, b, aspect) {
    const name = this.second ? title(b) : title(a);
    return html`${this.#frame(html`${this.#image(a)}${this.#image(b, 'over', { visibility: this.second ? 'visible' : 'hidden' })}`, aspect)}
      <div class="under">
        <span class="letter ${this.second ? 'b' : ''}">${this.second ? 'B' : 'A'}</span><span class="which">${name}</span>
        <button type="button" class="quiet" @click=${() => ((this.playing = false), (this.second = !this.second))}>${t('flicker.swap')}</button>
        <button type="button" class="quiet" aria-pressed=${String(this.playing)} @click=${() => (this.playing = !this.playing)}>
          ${t(this.playing ? 'flicker.pause' : 'flicker.play')}</button>
      </div>`;
  }

  #difference(aspect) {
    const { changed } = this;
    return html`${this.#frame(html`<canvas class="picture difference" role="img" aria-label=${t('difference.shown')}></canvas>`, aspect)}
      <div class="under"><span>${changed === null ? '' : changed ? t('difference.share', { share: percent(changed) }) : t('difference.none')}</span></div>`;
  }

  updated() {
    /** @type {HTMLCanvasElement | null} */
    const canvas = this.querySelector('canvas.difference');
    if (!canvas) return;
    const [a, b] = this.pair;
    const key = `${a.id} ${b.id}`;
    if (canvas.dataset.of === key) return;
    canvas.dataset.of = key;
    this.#subtract(canvas, a, b, key);
  }

  async #subtract(canvas, a, b, key) {
    const [width, height] = b.size;
    const read = async (turn) => {
      const image = new Image();
      image.src = turn.picture;
      await image.decode();
      const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
      context.drawImage(image, 0, 0, width, height);
      return context.getImageData(0, 0, width, height).data;
    };
    const { pixels, share } = differencePixels(await read(a), await read(b));
    if (canvas.dataset.of !== key) return;
    Object.assign(canvas, { width, height });
    canvas.getContext('2d').putImageData(new ImageData(pixels, width, height), 0, 0);
    this.changed = share;
  }

  render() {
    const { compare } = this.state;
    const [a, b] = compare ? this.pair : [];
    if (!a || !b) return nothing;
    const aspect = b.size[0] / b.size[1];
    const views = {
      slider: () => html`${this.#slider(a, b, aspect)}${this.#names(a, b)}`,
      side: () =>
        html`<div class="sides">${this.#frame(this.#image(a), a.size[0] / a.size[1])}${this.#frame(this.#image(b), aspect)}</div>${this.#names(a, b)}`,
      flicker: () => this.#flicker(a, b, aspect),
      difference: () => this.#difference(aspect),
    };
    return html`<div class="compare-bar">
        ${this.#select('a', 'A')}
        <div class="modes" role="group" aria-label=${t('compare.modes')}>
          ${MODES.map((mode) => html`<button type="button" aria-pressed=${String(compare.mode === mode)} @click=${() => act.setMode(mode)}>${t(`mode.${mode}`)}</button>`)}
        </div>
        ${this.#select('b', 'B')}
        ${tool({ name: 'close', label: t('close'), key: 'Esc', run: act.toggleCompare, tip: 'below-end' })}
      </div>
      ${views[compare.mode]()}`;
  }
}

customElements.define('kontext-compare', Compare);
