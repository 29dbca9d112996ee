// The line under the picture: what is being edited, what the edit did, how far the running one is.
import * as act from '../core/actions.js';
import { restorePrompt, retry } from '../core/sessions.js';
import { html, nothing, Part } from '../core/store.js';
import { duration, percent, roughly, t } from '../core/text.js';
import { base, isActive, node } from '../core/tree.js';
import { icon, title, tool } from './icons.js';

const WORTH_SAYING = 2; // seconds

class Caption extends Part {
  #running(job) {
    const where =
      job.state === 'queued'
        ? t(job.position > 1 ? 'queue.place' : 'queue.next', { n: job.position })
        : t('step.of', { i: job.step || 0, n: job.steps });
    const left = job.state === 'running' && job.left >= WORTH_SAYING ? t('time.left', { time: roughly(job.left) }) : '';
    return html`<div class="caption">
      <div class="now">
        <span class="label">${job.state === 'queued' ? t('state.queued') : t('state.running')}</span>
        <b dir="auto">${job.prompt}</b>
        <span class="facts">${where}${left ? html`<span>${left}</span>` : nothing}</span>
      </div>
      <button type="button" class="quiet stop" @click=${() => act.cancel(job.id)}>${icon('stop')}${t('stop')}</button>
    </div>`;
  }

  /** An edit that came to nothing: why, and what to do now. */
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
        <button type="button" class="quiet" @click=${() => act.cancel(job.id)}>${t('dismiss')}</button>
      </div>
    </div>`;
  }

  /** The share that changed, and whether the lock kept the rest. */
  #share(turn) {
    const { changed_fraction: share } = turn.facts;
    if (share === undefined || turn.kind === 'source') return nothing;
    if (!share) return html`<span class="kept">${t('unchanged')}</span>`;
    const kept = turn.region && share < 1 && turn.settings.lock !== false;
    return html`<span class="kept">${kept ? icon('lock') : nothing}${t('changed', { share: percent(share) })}${kept ? html`<span class="rest">${t('kept')}</span>` : nothing}</span>`;
  }

  /** What was measured: what changed, the time, the seed, and the size where it is another. */
  #facts(turn) {
    const { seconds } = turn.facts;
    const size = turn.size.join(' × ');
    const before = this.state.session.turns[turn.parent];
    return [
      this.#share(turn),
      seconds?.total ? html`<span>${duration(seconds.total)}</span>` : nothing,
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
    const button = (name, key, run, more = {}) => tool({ name, key, run, ...more, label: t(`key.${more.label ?? name}`) });
    return html`<div class="caption">
      <div class="now">
        <span class="label">${t('editing')}</span>
        <b dir="auto">${title(turn)}</b>
        <span class="facts">${this.#facts(turn)}</span>
      </div>
      <div class="doings">
        ${turn.kind === 'edit' ? button('variants', 'v', () => act.variants()) : nothing}
        ${turn.parent ? button('compare', 'c', act.toggleCompare) : nothing}
        ${turn.region && turn.facts.changed_fraction ? button('region', 'g', act.toggleRegion, { pressed: state.region, kind: 'marks' }) : nothing}
        ${button('download', 'd', () => act.download())}
        ${button('info', 'i', () => act.openPanel('details'), { label: 'details', tip: 'top-end' })}
      </div>
    </div>`;
  }
}

customElements.define('kx-caption', Caption);
