// Where one talks: the prompt, what goes with it, and suggestions while it is empty.
import * as act from '../core/actions.js';
import { recall } from '../core/memory.js';
import { html, nothing, Part, store } from '../core/store.js';
import { t } from '../core/text.js';
import { base, isActive, node } from '../core/tree.js';
import { fillIn } from '../core/words.js';
import { live } from '../vendor/lit/lit.js';
import { icon } from './icons.js';
import './references.js';
import './settings.js';

const JOBS = ['clothes', 'poster', 'views', 'background', 'style', 'add'];
const POINTED = ['box.replace', 'box.remove'];
const FROM_WORDS = ['words.character', 'words.scene', 'words.sticker'];

class Composer extends Part {
  #past = -1; // how far back in the history of prompts; -1: what is being typed
  #typed = '';

  get field() {
    return this.querySelector('#prompt');
  }

  #write(prompt) {
    store.set((state) => ({ ...state, draft: { ...state.draft, prompt } }));
  }

  #input(event) {
    this.#past = -1;
    this.#write(event.target.value);
  }

  #key(event) {
    if (event.isComposing) return;
    if (event.key === 'Enter' && !event.shiftKey) {
      event.preventDefault();
      act.submit();
    } else if (event.key === 'ArrowUp' && (event.altKey || this.field.selectionEnd === 0 || this.#past >= 0)) {
      this.#recall(1, event);
    } else if (event.key === 'ArrowDown' && (event.altKey || this.#past >= 0)) {
      this.#recall(-1, event);
    } else if (event.key === 'Escape' && !store.state.jobs[store.state.here]) {
      this.field.blur();
      event.preventDefault();
    }
  }

  /** Older (1) or newer (-1) prompts; what was being typed comes back at the end. */
  #recall(by, event) {
    const prompts = recall('prompts', []);
    const at = Math.min(this.#past + by, prompts.length - 1);
    if (at === this.#past || at < -1) return;
    event.preventDefault();
    if (this.#past === -1) this.#typed = this.state.draft.prompt;
    this.#past = at;
    this.#write(at < 0 ? this.#typed : prompts[at]);
  }

  async #fill(template) {
    const { text, start, end } = fillIn(template);
    this.#write(text);
    await this.updateComplete;
    this.field.focus();
    this.field.setSelectionRange(start, end);
  }

  /** The line above the prompt: suggestions while it is empty, else what the tool or the keys do. */
  #above(running) {
    const { draft, session, pointing, tool, compare } = this.state;
    const turn = base(this.state);
    const drawn = turn && pointing[turn.id];
    if (running) return this.#aside(t('hint.running'));
    if (session && !turn) return this.#aside('');
    if (compare) return this.#aside(t(compare.mode === 'slider' ? 'hint.slider' : 'hint.compare'));
    if (tool !== 'move' && !drawn) return this.#aside(t(`tool.${tool}.help`));
    if (draft.prompt) return this.#aside(session ? t('hint.typing') : '');
    const names = !session ? FROM_WORDS : drawn?.box ? POINTED : JOBS;
    return html`<div class="above suggestions" role="group" aria-label=${t('suggestions')}>
      ${names.map(
        (name) => html`<button type="button" class="chip" @click=${() => this.#fill(t(`preset.${name}.prompt`))}>${t(`preset.${name}`)}</button>`,
      )}
    </div>`;
  }

  #aside(words) {
    return html`<p class="above aside">${words}</p>`;
  }

  updated() {
    const { field } = this;
    if (field.value === this.fitted) return;
    this.fitted = field.value;
    field.style.height = 'auto';
    field.style.height = `${field.scrollHeight}px`;
    if (this.state.session && !this.focused && matchMedia('(hover: hover)').matches) {
      this.focused = true; // on a phone the keyboard would cover the picture
      field.focus();
    }
  }

  render() {
    const { state } = this;
    const job = node(state, state.here)?.job;
    const running = job && isActive(job);
    const turn = base(state);
    return html`${this.#above(running)}
      <form class="composer" @submit=${(event) => event.preventDefault()}>
        <div class="say">
          ${turn ? html`<kx-references></kx-references>` : nothing}
          <label class="spoken" for="prompt">${t('prompt')}</label>
          <textarea
            id="prompt"
            rows="1"
            dir="auto"
            maxlength=${state.capabilities?.limits.prompt_characters ?? 10000}
            placeholder=${t(state.session ? 'prompt.change' : 'prompt.start')}
            .value=${live(state.draft.prompt)}
            @input=${this.#input}
            @keydown=${this.#key}
          ></textarea>
          ${running
            ? html`<button type="button" class="send stopping" aria-label=${t('stop')} data-tip="${t('stop')}  ESC" data-side="top-end" @click=${() => act.cancel()}>${icon('stop')}</button>`
            : html`<button type="button" class="send" aria-label=${t('send')} data-tip="${t('send')}  ENTER" data-side="top-end" ?disabled=${!state.draft.prompt.trim()} @click=${act.submit}>${icon('send')}</button>`}
        </div>
        <kx-settings></kx-settings>
      </form>`;
  }
}

customElements.define('kx-composer', Composer);
