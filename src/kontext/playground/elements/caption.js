// The line under the picture: what is being edited, what the edit changed, progress of a running edit.
import * as act from '../core/actions.js';
import { setTool } from '../core/drawing.js';
import { canCopy, copy, download } from '../core/saving.js';
import { cancel, variants } from '../core/sending.js';
import { restorePrompt, retry } from '../core/sessions.js';
import { html, nothing, Part } from '../core/store.js';
import { duration, percent, roughly, t } from '../core/text.js';
import { base, isActive, node, siblings } from '../core/tree.js';
import { icon, title, tool } from './icons.js';

const WORTH_SAYING = 2; // seconds
const LITTLE = 0.25; // fraction of a picture that an edit of a single object changes at most

class Caption extends Part {
  #running(job) {
    const where = {
      sending: () => '',
      queued: () => t(job.position > 1 ? 'queue.place' : 'queue.next', { n: job.position }),
      running: () => t('step.of', { i: job.step || 0, n: job.steps }),
    }[job.state]();
    const left = job.state === 'running' && job.left >= WORTH_SAYING ? t('time.left', { time: roughly(job.left) }) : '';
    return html`<div class="caption">
      <div class="now">
        <span class="label">${t(`state.${job.state}`)}</span>
        <b dir="auto">${job.prompt}</b>
        <span class="facts">${where}${left ? html`<span>${left}</span>` : nothing}</span>
      </div>
      ${this.#stepper()}
      ${job.state === 'sending' ? nothing : html`<button type="button" class="quiet stop" @click=${() => cancel(job.id)}>${icon('stop')}${t('stop')}</button>`}
    </div>`;
  }

  /** A failed edit: why, and what to do now. */
  #ended(job) {
    return html`<div class="caption">
      <div class="now">
        <span class="label">${t(`state.${job.state}`)}</span>
        <b dir="auto">${job.prompt}</b>
        <span class="facts">${job.message}</span>
      </div>
      <div class="choices">
        ${job.state === 'failed' ? html`<button type="button" class="quiet" @click=${() => retry(job.id)}>${t('again')}</button>` : nothing}
        <button type="button" class="quiet" @click=${() => restorePrompt(job.prompt)}>${t('edit.words')}</button>
        <button type="button" class="quiet" @click=${() => cancel(job.id)}>${t('dismiss')}</button>
      </div>
    </div>`;
  }

  /** The fraction that changed, and whether the lock preserved the rest. */
  #share(turn) {
    const { changed_fraction: share } = turn.facts;
    if (share === undefined || turn.kind !== 'edit') return nothing;
    if (!share) return html`<span class="kept">${t('unchanged')}</span>`;
    const kept = turn.region && share < 1 && turn.settings.lock !== false;
    const much = kept && share > LITTLE && !turn.settings.box && !turn.mask;
    return html`<span class="kept">${kept ? icon('lock') : nothing}${t('changed', { share: percent(share) })}${kept && !much ? html`<span class="rest">${t('kept')}</span>` : nothing}</span>
      ${much ? html`<button type="button" class="link" @click=${() => this.#limit(turn)}>${t('limit')}</button>` : nothing}`;
  }

  /** Repeat the prompt within a box on the previous picture. */
  #limit(turn) {
    act.goTo(turn.parent);
    restorePrompt(turn.prompt);
    setTool('box');
  }

  /** Which variant is shown, with buttons for the previous and next one. */
  #stepper() {
    const all = siblings(this.state, this.state.here);
    if (all.length < 2) return nothing;
    const n = all.findIndex((variant) => variant.id === this.state.here) + 1;
    return html`<div class="stepper" role="group" aria-label=${t('siblings')}>
      ${tool({ name: 'left', label: t('key.previous'), key: '[', run: () => act.flip(-1) })}
      <span>${n} / ${all.length}</span>
      ${tool({ name: 'right', label: t('key.next'), key: ']', run: () => act.flip(1) })}
    </div>`;
  }

  /** Result info: what changed, time, seed, and the size if it differs from the parent's. */
  #facts(turn) {
    const { seconds } = turn.facts;
    const size = turn.size.join(' × ');
    const before = this.state.session.turns[turn.parent];
    return [
      this.#share(turn),
      seconds?.total && turn.kind !== 'source' ? html`<span>${duration(seconds.total)}</span>` : nothing,
      turn.seed === null ? nothing : html`<span>${t('seed.was', { seed: turn.seed })}</span>`,
      before?.size.join(' × ') === size ? nothing : html`<span>${size}</span>`,
    ];
  }

  render() {
    const { state } = this;
    const at = node(state, state.here);
    if (!at || state.arriving || state.compare) return nothing;
    if (at.job) return isActive(at.job) ? this.#running(at.job) : this.#ended(at.job);
    const turn = base(state);
    if (!turn) return nothing;
    const button = (name, key, run, more = {}) =>
      tool({ name, key, run, ...more, label: t(`key.${more.label ?? name}`), short: t(`short.${more.label ?? name}`) });
    return html`<div class="caption">
      <div class="now">
        <span class="label">${t('editing')}</span>
        <b dir="auto">${title(turn)}</b>
        <span class="facts">${this.#facts(turn)}</span>
      </div>
      ${this.#stepper()}
      <div class="doings">
        ${turn.kind === 'edit' ? button('variants', 'v', () => variants()) : nothing}
        ${turn.parent ? button('compare', 'c', act.toggleCompare) : nothing}
        ${turn.region && turn.facts.changed_fraction ? button('region', 'g', act.toggleRegion, { pressed: state.region, kind: 'marks' }) : nothing}
        ${canCopy() ? button('copy', 'y', () => copy(), { kind: 'second' }) : nothing}
        ${button('download', 'd', () => download())}
        ${button('info', 'i', () => act.openPanel('details'), { label: 'details', tip: 'top-end' })}
      </div>
    </div>`;
  }
}

customElements.define('kontext-caption', Caption);
